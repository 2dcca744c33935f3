"""Draw identities and scenes at random, from a generator that the caller seeds."""

from random import Random

from engine.embedded.world.identity import IDENTITY_VALUES, Identity
from engine.embedded.world.scene import SCENE_VALUES, Scene

# "none" is likelier than its share for what most people lack; every other attribute is uniform.
_NONE_SHARE = {"glasses": 0.42, "facial_hair": 0.5, "hat": 0.44}
_MAX_SHIFT = 2.5


def _pick(random: Random, name: str, values: tuple[str, ...]) -> str:
    share = _NONE_SHARE.get(name)
    if share is None:
        return random.choice(values)
    return "none" if random.random() < share else random.choice([v for v in values if v != "none"])


def sample_identity(random: Random) -> Identity:
    """Return a random person."""
    return Identity(**{name: _pick(random, name, values) for name, values in IDENTITY_VALUES.items()})


def sample_scene(random: Random) -> Scene:
    """Return a random scene; the person is moved by up to 2.5/128 of the picture."""
    values = {name: _pick(random, name, values) for name, values in SCENE_VALUES.items()}
    return Scene(
        background=values["background"],
        clothing=values["clothing"],
        expression=values["expression"],
        light=values["light"],
        framing=values["framing"],
        hat=values["hat"],
        shift_x=random.uniform(-_MAX_SHIFT, _MAX_SHIFT),
        shift_y=random.uniform(-_MAX_SHIFT, _MAX_SHIFT),
    )
