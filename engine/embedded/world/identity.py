"""Say who is in a portrait, as a handful of named attributes."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

IDENTITY_VALUES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "skin": ("pale", "light", "tan", "brown", "dark"),
        "hair_colour": ("black", "brown", "blond", "red", "silver", "blue", "pink"),
        "hair_style": ("short", "long", "curly", "bob", "pigtails", "spiky", "bun", "bald"),
        "eyes": ("brown", "blue", "green"),
        "eye_spacing": ("close", "average", "wide"),
        "brows": ("thin", "bushy"),
        "nose": ("small", "broad", "long"),
        "facial_hair": ("none", "moustache", "beard"),
        "glasses": ("none", "round", "square"),
        "freckles": ("none", "freckles"),
        "face": ("oval", "round", "square"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Hold what stays the same about a person in every scene.

    Raises ValueError when an attribute is not one of `IDENTITY_VALUES`.
    """

    skin: str
    hair_colour: str
    hair_style: str
    eyes: str
    eye_spacing: str
    brows: str
    nose: str
    facial_hair: str
    glasses: str
    freckles: str
    face: str

    def __post_init__(self) -> None:
        for name, allowed in IDENTITY_VALUES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, not {getattr(self, name)!r}")

    def labels(self) -> dict[str, int]:
        """Return each attribute's index into `IDENTITY_VALUES`."""
        return {f.name: IDENTITY_VALUES[f.name].index(getattr(self, f.name)) for f in fields(self)}
