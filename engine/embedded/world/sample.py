"""Draw identities and scenes at random, from a generator that the caller seeds."""

from collections.abc import Mapping
from random import Random
from types import MappingProxyType

from engine.embedded.world.identity import IDENTITY_VALUES, Identity
from engine.embedded.world.scene import SCENE_VALUES, Scene

# How often the usual value is drawn; the others share the rest evenly, and so do all in other attributes.
USUAL: Mapping[str, tuple[str, float]] = MappingProxyType(
    {
        "eye_spacing": ("average", 0.5),
        "facial_hair": ("none", 0.5),
        "glasses": ("none", 0.42),
        "freckles": ("none", 0.6),
        "gaze": ("ahead", 0.5),
        "hat": ("none", 0.44),
        "style": ("flat", 0.55),
    }
)
MAX_SHIFT = 2.0


def _pick(random: Random, name: str, values: tuple[str, ...]) -> str:
    if name not in USUAL:
        return random.choice(values)
    usual, share = USUAL[name]
    return usual if random.random() < share else random.choice([v for v in values if v != usual])


def sample_identity(random: Random) -> Identity:
    """Return a random person."""
    return Identity(**{name: _pick(random, name, values) for name, values in IDENTITY_VALUES.items()})


def sample_scene(random: Random) -> Scene:
    """Return a random scene; the person is moved by up to 2/128 of the picture."""
    values = {name: _pick(random, name, values) for name, values in SCENE_VALUES.items()}
    return Scene(
        background=values["background"],
        clothing=values["clothing"],
        garment=values["garment"],
        expression=values["expression"],
        gaze=values["gaze"],
        light=values["light"],
        framing=values["framing"],
        hat=values["hat"],
        style=values["style"],
        shift_x=random.uniform(-MAX_SHIFT, MAX_SHIFT),
        shift_y=random.uniform(-MAX_SHIFT, MAX_SHIFT),
    )
