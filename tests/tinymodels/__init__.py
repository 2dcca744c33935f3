"""Tiny random models in published layouts: real architecture, a few milliseconds a UNet call, built in under 2 s.

``build_tiny_model(path)`` writes a Stable Diffusion 1.x directory that diffusers and this engine both load;
``open_pipeline(path)`` opens it with diffusers, which is the oracle of every equivalence test.
"""

from tests.tinymodels.adapters import ADAPTER_KINDS, write_adapter
from tests.tinymodels.oracle import open_pipeline
from tests.tinymodels.sd1 import TinySettings, build_tiny_model

__all__ = ["ADAPTER_KINDS", "TinySettings", "build_tiny_model", "open_pipeline", "write_adapter"]
