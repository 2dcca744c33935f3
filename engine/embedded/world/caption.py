"""Put a drawn portrait into words, with synonyms and parts left out at random."""

from random import Random

from engine.embedded.world.identity import Identity
from engine.embedded.world.scene import Scene
from engine.embedded.world.words import (
    BACKGROUND,
    CLOTHES,
    EXPRESSION,
    FACE,
    FACIAL_HAIR,
    FILLERS,
    FRAMING,
    GLASSES,
    HAIR_COLOUR,
    HAIR_STYLE,
    HAT,
    LIGHT,
    MEDIUM,
    PERSON,
    SKIN,
)


def caption(scene: Scene, random: Random, *, identity: Identity | None = None, keep: float = 0.92) -> str:
    """Return a description of the scene, and of the person when `identity` is given.

    Each part is left out with probability `1 - keep`; what is the default in a picture (no hat, soft light,
    medium framing) is often left unsaid, so that a short prompt gets the default.
    """
    person = random.choice(PERSON)
    if identity is None:
        traits: list[str] = []
    else:
        traits = [t for t in _traits(identity, random) if random.random() < keep]
        if identity.hair_style == "bald" and random.random() < 0.5:
            person = f"bald {person}"
    parts = (
        [f"with {' and '.join([', '.join(traits[:-1]), traits[-1]] if len(traits) > 1 else traits)}"]
        if traits
        else []
    )
    parts += [part for part in _scene_parts(scene, random) if random.random() < keep]
    if random.random() < 0.5:
        random.shuffle(parts)
    article = "an" if person[0] in "aeiou" else "a"
    opening = random.choice(MEDIUM).format(person=f"{article} {person}")
    if scene.framing == "close-up" and random.random() < 0.4:
        opening = f"{random.choice(('close-up', 'close up'))} {opening}"
    text = ", ".join([opening, *parts]) if random.random() < 0.75 else " ".join([opening, *parts])
    if random.random() < 0.15:
        text = f"{text}, {random.choice(FILLERS)}"
    return text


def _scene_parts(scene: Scene, random: Random) -> list[str]:
    wearing = random.choice(CLOTHES).format(colour=scene.clothing)
    expression = random.choice(EXPRESSION[scene.expression])
    parts = [expression, wearing, random.choice(BACKGROUND[scene.background])]
    if scene.hat != "none":
        hat = random.choice(HAT[scene.hat])
        if random.random() < 0.4:
            parts[1] = f"{wearing} and {hat}"
        else:
            parts.append(f"{random.choice(('wearing', 'with', 'in'))} {hat}")
    elif random.random() < 0.06:
        parts.append(random.choice(HAT["none"]))
    if scene.light != "soft" or random.random() < 0.4:
        parts.append(random.choice(LIGHT[scene.light]))
    if random.random() < (0.85 if scene.framing == "close-up" else 0.35):
        parts.append(random.choice(FRAMING[scene.framing]))
    return parts


def _traits(identity: Identity, random: Random) -> list[str]:
    hair = random.choice(HAIR_STYLE[identity.hair_style]).format(
        colour=random.choice(HAIR_COLOUR[identity.hair_colour])
    )
    traits = [random.choice(SKIN[identity.skin]), hair, f"{identity.eyes} eyes"]
    if identity.glasses != "none":
        traits.append(random.choice(GLASSES[identity.glasses]))
    if identity.facial_hair != "none":
        traits.append(random.choice(FACIAL_HAIR[identity.facial_hair]))
    if random.random() < 0.6:
        traits.append(random.choice(FACE[identity.face]))
    random.shuffle(traits)
    return traits
