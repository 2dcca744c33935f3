"""What may be chosen about an export."""

from __future__ import annotations

from dataclasses import dataclass

from engine.models.lora_choice import LoraChoice

OPSETS = (20, 21, 22)
"""20 writes GroupNorm as InstanceNormalization, 21 as GroupNormalization; convolutions of bfloat16 begin with 22.
23's Attention crashes TensorRT-RTX."""

DTYPES = ("float32", "float16", "bfloat16")

PACKAGES = ("torch", "diffusers", "transformers", "onnx")
"""Packages whose versions decide what an export holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """What may be chosen about an export.

    ``size`` is (height, width) in pixels, None leaves it dynamic. ``opset`` None is 21, or 22 for bfloat16, which the
    operators of earlier ones don't take. ``adapter`` is the default one; all of the directory are exported.
    ``loras`` are fused into the weights, after those in the directory's ``lora/``.
    """

    adapter: str | None = None
    dtype: str = "float32"
    size: tuple[int, int] | None = None
    opset: int | None = None
    loras: tuple[LoraChoice, ...] = ()

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for settings that cannot hold."""
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype}; one of {', '.join(DTYPES)} is possible")
        possible = [opset for opset in OPSETS if opset >= 22 or self.dtype != "bfloat16"]
        if self.opset is not None and self.opset not in possible:
            raise ValueError(f"opset is {self.opset}; for {self.dtype} {possible} are possible")
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"size is {self.size}; it must be positive")

    @property
    def chosen_opset(self) -> int:
        """The opset of the graphs."""
        return self.opset or (22 if self.dtype == "bfloat16" else 21)
