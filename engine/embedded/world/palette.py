"""Name the colours of the world."""

from collections.abc import Mapping
from types import MappingProxyType

from engine.embedded.world.pen import Colour

INK: Colour = (38, 30, 40)

SKIN: Mapping[str, Colour] = MappingProxyType(
    {
        "pale": (255, 230, 214),
        "light": (246, 203, 168),
        "tan": (222, 164, 112),
        "brown": (160, 102, 62),
        "dark": (92, 57, 42),
    }
)
HAIR: Mapping[str, Colour] = MappingProxyType(
    {
        "black": (34, 30, 40),
        "brown": (104, 62, 38),
        "blond": (240, 200, 96),
        "red": (202, 74, 30),
        "silver": (196, 201, 212),
        "blue": (48, 88, 196),
        "pink": (242, 106, 162),
    }
)
IRIS: Mapping[str, Colour] = MappingProxyType(
    {"brown": (122, 70, 28), "blue": (40, 120, 232), "green": (44, 160, 74)}
)
CLOTH: Mapping[str, Colour] = MappingProxyType(
    {
        "red": (214, 48, 52),
        "blue": (44, 92, 200),
        "green": (38, 142, 84),
        "yellow": (246, 196, 44),
        "black": (44, 44, 54),
        "white": (242, 242, 246),
        "purple": (132, 66, 176),
    }
)
BACKDROP: Mapping[str, Colour] = MappingProxyType(
    {
        "blue": (104, 172, 236),
        "green": (122, 200, 142),
        "yellow": (252, 216, 96),
        "pink": (250, 172, 192),
        "white": (244, 242, 240),
    }
)
GRADIENT: Mapping[str, tuple[Colour, Colour]] = MappingProxyType(
    {
        "violet gradient": ((84, 52, 168), (244, 190, 236)),
        "teal gradient": ((8, 100, 122), (178, 240, 214)),
    }
)
