"""Say which ways of generating the report compares, and over which attributes it takes its means."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

GUIDANCE_SCALE = 3.0
IDENTITY_BAR = ("skin", "hair_colour", "hair_style", "glasses", "facial_hair")
PROMPT_BAR = ("background", "clothing", "expression", "light", "framing", "hat")
BAR = IDENTITY_BAR + PROMPT_BAR


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Hold one way of generating.

    reference: "elsewhere" (the person in another scene), "neutral" (in the plain scene) or None.
    describe: whether the caption also describes the person.
    """

    reference: str | None = "elsewhere"
    describe: bool = False
    ip_adapter_scale: float = 1.0
    guidance_scale: float = GUIDANCE_SCALE
    steps: int = 20
    sampler: str = "ddim"

    def __post_init__(self) -> None:
        if self.reference not in ("elsewhere", "neutral", None):
            raise ValueError(f"reference must be elsewhere, neutral or None, not {self.reference!r}")


MAIN = Setting()
MAIN_SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {
        "reference": MAIN,
        "neutral": replace(MAIN, reference="neutral"),
        "unscaled": replace(MAIN, ip_adapter_scale=0.0),
        "text": replace(MAIN, reference=None, describe=True, ip_adapter_scale=0.0),
    }
)
AXES: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "ip_adapter_scale": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2),
        "guidance_scale": (1.0, 2.0, 3.0, 5.0, 7.5, 12.0),
        "steps": (5, 10, 20, 30, 50),
    }
)


def along(axis: str) -> list[Setting]:
    """Return the main setting with one of `AXES` varied."""
    settings = []
    for value in AXES[axis]:
        varied: dict[str, Any] = {axis: value}
        settings.append(replace(MAIN, **varied))
    return settings
