"""Static optimisation profiles: the exact shapes that each bucket of each size runs with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.backends.tensorrt.errors import GraphRefusedError

REQUIRED = ("sample", "timestep", "kv_text", "kv_ip", "ip_mask")
OPTIONAL = ("text_embeds", "time_ids", "timestep_cond")
OUTPUT = "noise"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One bucket of one size: ``rows`` in a batch, latents of ``height`` x ``width`` cells, tokens of a slot."""

    rows: int
    height: int
    width: int
    text_tokens: int
    ip_tokens: int

    def shape(self, name: str, declared: Sequence[int]) -> tuple[int, ...]:
        """Return an input's shape under this profile; ``declared`` has -1 where the graph leaves an axis open.

        Raises ``GraphRefusedError`` where the graph fixes an axis to something else or has one that nobody knows.
        """
        axes = {
            "sample": {0: self.rows, 2: self.height, 3: self.width},
            "timestep": {0: self.rows},
            "kv_text": {0: self.rows, 1: self.text_tokens},
            "kv_ip": {0: self.rows, 1: self.ip_tokens},
            "ip_mask": {0: self.rows, 1: self.ip_tokens},
            "text_embeds": {0: self.rows},
            "time_ids": {0: self.rows},
            "timestep_cond": {0: self.rows},
        }.get(name)
        if axes is None:
            expected = ", ".join(REQUIRED + OPTIONAL)
            raise GraphRefusedError("the graph has an unknown input", tensor=name, expected=expected)
        shape = tuple(axes.get(axis, size) for axis, size in enumerate(declared))
        for wanted, size in zip(shape, declared, strict=True):
            if wanted < 0 or size not in (-1, wanted):
                raise GraphRefusedError(
                    "the graph has another shape than the profile",
                    tensor=name,
                    expected=str(list(shape)),
                    found=str(list(declared)),
                )
        return shape

    def record(self) -> dict[str, int]:
        """Return the profile as the manifest holds it."""
        return asdict(self)


def check_inputs(names: Sequence[str]) -> None:
    """Raise ``GraphRefusedError`` unless these are the inputs of the UNet's graph."""
    for name in REQUIRED:
        if name not in names:
            raise GraphRefusedError("the graph lacks an input", tensor=name, found=", ".join(names))


def profiles_of(
    buckets: Sequence[int], sizes: Sequence[tuple[int, int]], *, text_tokens: int, ip_tokens: int
) -> tuple[Profile, ...]:
    """Return the profiles of all buckets in all sizes (height, width in cells), in the engine's order."""
    return tuple(
        Profile(rows=rows, height=height, width=width, text_tokens=text_tokens, ip_tokens=ip_tokens)
        for height, width in sizes
        for rows in sorted(set(buckets))
    )


def torch_type(trt: Any, dtype: Any) -> Any:
    """Return torch's type for a TensorRT ``DataType``. Raises ``GraphRefusedError``."""
    import torch

    types = {
        trt.DataType.FLOAT: torch.float32,
        trt.DataType.HALF: torch.float16,
        trt.DataType.BF16: torch.bfloat16,
        trt.DataType.INT32: torch.int32,
        trt.DataType.INT64: torch.int64,
    }
    if dtype not in types:
        raise GraphRefusedError(
            "a tensor of the graph has a type that torch does not share", found=str(dtype)
        )
    return types[dtype]
