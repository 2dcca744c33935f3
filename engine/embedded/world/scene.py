"""Say what surrounds the person in a portrait, as a handful of named attributes."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

SCENE_VALUES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "background": (
            "blue", "green", "yellow", "pink", "white", "violet gradient", "teal gradient",
            "beach", "forest", "city", "sunset", "mountains",
        ),
        "clothing": ("red", "blue", "green", "yellow", "black", "white", "purple"),
        "garment": ("sweater", "hoodie", "shirt", "jacket"),
        "expression": ("neutral", "smile", "laugh", "sad", "surprised"),
        "gaze": ("ahead", "left", "right"),
        "light": ("soft", "warm", "cool", "dramatic"),
        "framing": ("medium", "close-up"),
        "hat": ("none", "beanie", "cap", "straw hat", "crown"),
        "style": ("flat", "sketch", "watercolour", "pixel"),
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Hold what may change between two portraits of one person.

    `clothing` is the colour of the garment; `gaze` is as the viewer sees it.
    `shift_x` and `shift_y` move the person, in units of 1/128 of the picture; no caption mentions them.
    Raises ValueError when an attribute is not one of `SCENE_VALUES`.
    """

    background: str
    clothing: str
    garment: str
    expression: str
    gaze: str
    light: str
    framing: str
    hat: str
    style: str
    shift_x: float = 0.0
    shift_y: float = 0.0

    def __post_init__(self) -> None:
        for name, allowed in SCENE_VALUES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, not {getattr(self, name)!r}")

    def labels(self) -> dict[str, int]:
        """Return each attribute's index into `SCENE_VALUES`."""
        return {name: values.index(getattr(self, name)) for name, values in SCENE_VALUES.items()}
