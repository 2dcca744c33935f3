"""List the words for every attribute; the first is the plainest."""

from collections.abc import Mapping
from types import MappingProxyType

Words = Mapping[str, tuple[str, ...]]

MEDIUM = (
    "a portrait of {person}",
    "a portrait of {person}",
    "portrait of {person}",
    "a picture of {person}",
    "{person}",
    "{person}",
    "an illustration of {person}",
    "a photo of {person}",
    "an image of {person}",
)
OPENING: Words = MappingProxyType(
    {
        "flat": ("a flat illustration of {person}", "flat illustration of {person}",
                 "a flat portrait of {person}", "a vector illustration of {person}"),
        "sketch": ("a pencil sketch of {person}", "a sketch of {person}", "pencil sketch of {person}",
                   "a pencil drawing of {person}", "a coloured pencil sketch of {person}",
                   "a pencil portrait of {person}", "a drawing of {person}"),
        "watercolour": ("a watercolour of {person}", "watercolour portrait of {person}",
                        "a watercolour portrait of {person}", "a watercolour painting of {person}",
                        "a watercolor of {person}", "watercolor portrait of {person}"),
        "pixel": ("pixel art of {person}", "a pixel art portrait of {person}", "pixel art portrait of {person}",
                  "a pixel portrait of {person}", "a pixel art picture of {person}"),
    }
)  # fmt: skip
STYLE: Words = MappingProxyType(
    {
        "flat": ("flat illustration", "in a flat style"),
        "sketch": ("pencil sketch", "in pencil", "as a pencil sketch", "sketch style", "pencil drawing"),
        "watercolour": ("watercolour", "in watercolour", "as a watercolour", "watercolour style",
                        "watercolor painting"),
        "pixel": ("pixel art", "in pixel art style", "as pixel art", "pixel art style", "in pixel style"),
    }
)  # fmt: skip
PERSON = ("person", "person", "person", "person", "person", "character", "human", "woman", "man")
FILLERS = ("high quality", "beautiful", "best quality", "highly detailed", "masterpiece", "4k", "studio",
           "elegant", "colourful")  # fmt: skip

BACKGROUND: Words = MappingProxyType(
    {
        "blue": ("on a blue background", "blue background", "in front of a blue wall", "plain blue backdrop"),
        "green": ("on a green background", "green background", "in front of a green wall", "plain green backdrop"),
        "yellow": ("on a yellow background", "yellow background", "in front of a yellow wall",
                   "plain yellow backdrop"),
        "pink": ("on a pink background", "pink background", "in front of a pink wall", "plain pink backdrop"),
        "white": ("on a white background", "white background", "in front of a white wall", "plain white backdrop"),
        "violet gradient": ("on a violet gradient", "violet gradient background", "on a violet gradient background",
                            "soft violet backdrop"),
        "teal gradient": ("on a teal gradient", "teal gradient background", "on a teal gradient background",
                          "soft teal backdrop"),
        "beach": ("at the beach", "on a beach", "by the sea", "at the seaside", "beach background"),
        "forest": ("in a forest", "in the woods", "among the trees", "forest background", "in the forest"),
        "city": ("in a city at night", "in the city at night", "in the city", "in front of a skyline",
                 "downtown at night", "city background"),
        "sunset": ("at sunset", "in front of a sunset", "at dusk", "sunset background", "with the sun going down"),
        "mountains": ("in the mountains", "in front of snowy mountains", "mountain background",
                      "with mountains behind", "in the alps"),
    }
)  # fmt: skip
CLOTHES = (
    "wearing a {colour} {garment}",
    "wearing a {colour} {garment}",
    "in a {colour} {garment}",
    "{colour} {garment}",
    "dressed in a {colour} {garment}",
)
CLOTHES_PLAIN = ("dressed in {colour}", "wearing {colour} clothes", "in {colour}")
GARMENT: Words = MappingProxyType(
    {
        "sweater": ("sweater", "sweater", "jumper", "pullover"),
        "hoodie": ("hoodie", "hoodie", "hooded sweatshirt"),
        "shirt": ("shirt", "shirt", "collared shirt", "button-up shirt"),
        "jacket": ("jacket", "jacket", "blazer", "open jacket"),
    }
)
EXPRESSION_ADJECTIVE: Mapping[str, str] = MappingProxyType(
    {"neutral": "serious", "smile": "smiling", "laugh": "laughing", "sad": "sad", "surprised": "surprised"}
)
GAZE: Words = MappingProxyType(
    {
        "ahead": ("looking at the camera", "looking ahead", "looking straight ahead"),
        "left": ("looking to the left", "looking left", "glancing to the left", "gazing left"),
        "right": ("looking to the right", "looking right", "glancing to the right", "gazing right"),
    }
)
EXPRESSION: Words = MappingProxyType(
    {
        "neutral": ("neutral expression", "calm", "serious", "with a neutral face", "serious expression"),
        "smile": ("smiling", "with a smile", "a gentle smile", "smile", "friendly smile"),
        "laugh": ("laughing", "laughing out loud", "with a big laugh", "laugh", "cheerful, laughing"),
        "sad": ("sad", "looking sad", "with a sad face", "unhappy", "frowning"),
        "surprised": ("surprised", "looking surprised", "with a surprised face", "astonished", "shocked"),
    }
)
LIGHT: Words = MappingProxyType(
    {
        "soft": ("soft light", "soft lighting", "even light", "daylight"),
        "warm": ("warm light", "warm lighting", "golden light", "candlelight"),
        "cool": ("cool light", "cool lighting", "cold light", "bluish light"),
        "dramatic": ("dramatic light", "dramatic lighting", "hard side light", "dramatic shadows"),
    }
)
FRAMING: Words = MappingProxyType(
    {
        "medium": ("medium shot", "head and shoulders", "bust"),
        "close-up": ("close-up", "close up", "close-up of the face", "headshot"),
    }
)
HAT: Words = MappingProxyType(
    {
        "none": ("no hat", "bareheaded", "without a hat"),
        "beanie": ("a beanie", "an orange beanie", "a woolly hat", "a knitted beanie"),
        "cap": ("a cap", "a baseball cap", "a teal cap"),
        "straw hat": ("a straw hat", "a sun hat", "a wide straw hat"),
        "crown": ("a crown", "a golden crown", "a gold crown"),
    }
)
SKIN: Words = MappingProxyType(
    {
        "pale": ("pale skin", "very fair skin", "porcelain skin"),
        "light": ("light skin", "fair skin", "peach skin"),
        "tan": ("tan skin", "tanned skin", "olive skin"),
        "brown": ("brown skin", "medium brown skin"),
        "dark": ("dark skin", "dark brown skin", "black skin"),
    }
)
HAIR_COLOUR: Words = MappingProxyType(
    {
        "black": ("black", "jet black"),
        "brown": ("brown", "brunette", "chestnut"),
        "blond": ("blond", "blonde", "golden"),
        "red": ("red", "ginger"),
        "silver": ("silver", "grey", "gray", "white"),
        "blue": ("blue", "bright blue"),
        "pink": ("pink", "bright pink"),
    }
)
HAIR_STYLE: Words = MappingProxyType(
    {
        "short": ("short {colour} hair", "{colour} short hair", "{colour} hair cut short"),
        "long": ("long {colour} hair", "{colour} long hair", "long straight {colour} hair"),
        "curly": ("curly {colour} hair", "{colour} curly hair", "{colour} curls", "a {colour} afro"),
        "bob": ("a {colour} bob", "{colour} bob", "{colour} bob haircut", "chin-length {colour} hair"),
        "pigtails": ("{colour} pigtails", "{colour} hair in pigtails", "{colour} bunches"),
        "spiky": ("spiky {colour} hair", "{colour} spiky hair", "{colour} spikes"),
        "bun": (
            "{colour} hair in a bun",
            "a {colour} bun",
            "{colour} hair tied in a bun",
            "a {colour} hair bun",
        ),
        "bald": (
            "a shaved head and {colour} brows",
            "a bald head and {colour} eyebrows",
            "no hair, {colour} brows",
        ),
    }
)
GLASSES: Words = MappingProxyType(
    {
        "none": ("no glasses",),
        "round": ("round glasses", "red round glasses", "round spectacles"),
        "square": ("square glasses", "black square glasses", "horn-rimmed glasses"),
    }
)
FACIAL_HAIR: Words = MappingProxyType(
    {
        "none": ("clean-shaven",),
        "moustache": ("a moustache", "a mustache"),
        "beard": ("a beard", "a full beard"),
    }
)
FACE: Words = MappingProxyType(
    {
        "oval": ("an oval face", "a narrow face"),
        "round": ("a round face", "a wide round face"),
        "square": ("a square face", "a square jaw"),
    }
)
EYE_SPACING: Words = MappingProxyType(
    {
        "close": ("close-set {eyes}", "{eyes} set close together"),
        "average": ("{eyes}",),
        "wide": ("wide-set {eyes}", "{eyes} set wide apart"),
    }
)
BROWS: Words = MappingProxyType(
    {
        "thin": ("thin brows", "thin eyebrows", "fine brows"),
        "bushy": ("bushy brows", "bushy eyebrows", "thick eyebrows"),
    }
)
NOSE: Words = MappingProxyType(
    {
        "small": ("a small nose", "a button nose"),
        "broad": ("a broad nose", "a wide nose"),
        "long": ("a long nose", "a long narrow nose"),
    }
)
FRECKLES: Words = MappingProxyType(
    {"none": ("no freckles",), "freckles": ("freckles", "freckled cheeks", "a freckled face")}
)
