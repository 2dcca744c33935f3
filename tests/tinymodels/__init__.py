"""Tiny random models in published layouts: real architecture, a few milliseconds a UNet call, built in under 2 s.

``build_tiny_model(path)`` writes a Stable Diffusion 1.x or 2.x directory that diffusers and this engine both load,
``build_tiny_xl(path)`` one of SDXL;
``open_pipeline(path)`` opens it with diffusers, which is the oracle of every equivalence test.
"""

from tests.tinymodels.adapters import ADAPTER_KINDS, write_adapter
from tests.tinymodels.oracle import open_pipeline
from tests.tinymodels.sd1 import LCM, SD2, TURBO, TinySettings, build_tiny_model
from tests.tinymodels.sdxl import TinyXLSettings, build_tiny_xl

__all__ = [
    "ADAPTER_KINDS",
    "LCM",
    "SD2",
    "TURBO",
    "TinySettings",
    "TinyXLSettings",
    "build_tiny_model",
    "build_tiny_xl",
    "open_pipeline",
    "write_adapter",
]
