"""Put a drawn portrait into words, with synonyms and parts left out at random."""

from random import Random

from engine.embedded.world.identity import Identity
from engine.embedded.world.scene import Scene
from engine.embedded.world.words import (
    BACKGROUND,
    BROWS,
    CLOTHES,
    CLOTHES_PLAIN,
    EXPRESSION,
    EXPRESSION_ADJECTIVE,
    EYE_SPACING,
    FACE,
    FACIAL_HAIR,
    FILLERS,
    FRAMING,
    FRECKLES,
    GARMENT,
    GAZE,
    GLASSES,
    HAIR_COLOUR,
    HAIR_STYLE,
    HAT,
    LIGHT,
    MEDIUM,
    NOSE,
    OPENING,
    PERSON,
    SKIN,
    STYLE,
)

# How often a caption of a person mentions a small trait, and that a person lacks glasses, beard or freckles.
_SMALL = 0.6
_ABSENT = 0.1


def caption(scene: Scene, random: Random, *, identity: Identity | None = None, keep: float = 0.92) -> str:
    """Return a description of the scene, and of the person when `identity` is given.

    Each part is left out with probability `1 - keep`, what tells people apart less often; what is the default
    in a picture (flat style, no hat, soft light, medium framing, looking ahead) is often left unsaid, so that
    a short prompt gets the default.
    """
    traits = [] if identity is None else _traits(identity, random, keep)
    short = bool(traits) and random.random() < 0.2
    adjective = not short and random.random() < 0.12
    parts = [part for part in _scene_parts(scene, random, adjective=adjective) if random.random() < keep]
    style_told = scene.style != "flat" and random.random() < keep
    if short:
        if style_told:
            parts.append(random.choice(STYLE[scene.style]))
        return ", ".join([*traits, *parts])
    who = f"with {_joined(traits, random)}" if traits else ""
    beside_opening = random.random() < 0.5
    if who and not beside_opening:
        parts.insert(0, who)
    if style_told and random.random() < 0.25:
        parts.append(random.choice(STYLE[scene.style]))
        style_told = False
    if random.random() < 0.5:
        random.shuffle(parts)
    opening = _opening(scene, random, style_told=style_told, adjective=adjective)
    if who and beside_opening:
        opening = f"{opening} {who}"
    text = ", ".join([opening, *parts]) if random.random() < 0.75 else " ".join([opening, *parts])
    if random.random() < 0.12:
        text = f"{text}, {random.choice(FILLERS)}"
    return text


def _opening(scene: Scene, random: Random, *, style_told: bool, adjective: bool) -> str:
    person = random.choice(PERSON)
    if adjective:
        person = f"{EXPRESSION_ADJECTIVE[scene.expression]} {person}"
    if style_told or (scene.style == "flat" and random.random() < 0.1):
        opening = random.choice(OPENING[scene.style])
    else:
        opening = random.choice(MEDIUM)
    opening = opening.format(person=f"a {person}")
    if scene.framing == "close-up" and random.random() < 0.4:
        close = random.choice(("close-up", "close up"))
        for article in ("a ", "an "):
            if opening.startswith(article):
                return f"a {close} {opening.removeprefix(article)}"
        return f"{close} {opening}"
    return opening


def _joined(traits: list[str], random: Random) -> str:
    if len(traits) == 1 or random.random() < 0.3:
        return ", ".join(traits)
    return f"{', '.join(traits[:-1])} and {traits[-1]}"


def _scene_parts(scene: Scene, random: Random, *, adjective: bool) -> list[str]:
    wearing = random.choice(CLOTHES_PLAIN if random.random() < 0.12 else CLOTHES).format(
        colour=scene.clothing, garment=random.choice(GARMENT[scene.garment])
    )
    parts = [wearing, random.choice(BACKGROUND[scene.background])]
    if scene.hat != "none":
        hat = random.choice(HAT[scene.hat])
        if random.random() < 0.4:
            parts[0] = f"{wearing} and {hat}"
        else:
            parts.append(f"{random.choice(('wearing', 'with', 'in'))} {hat}")
    elif random.random() < 0.06:
        parts.append(random.choice(HAT["none"]))
    if not adjective or random.random() < 0.4:
        parts.insert(0, random.choice(EXPRESSION[scene.expression]))
    if random.random() < (0.12 if scene.gaze == "ahead" else 0.5 if scene.expression == "laugh" else 1.0):
        parts.append(random.choice(GAZE[scene.gaze]))
    if scene.light != "soft" or random.random() < 0.3:
        parts.append(random.choice(LIGHT[scene.light]))
    if random.random() < (0.85 if scene.framing == "close-up" else 0.25):
        parts.append(random.choice(FRAMING[scene.framing]))
    return parts


def _traits(identity: Identity, random: Random, keep: float) -> list[str]:
    hair = random.choice(HAIR_STYLE[identity.hair_style]).format(
        colour=random.choice(HAIR_COLOUR[identity.hair_colour])
    )
    eyes = f"{identity.eyes} eyes"
    if identity.eye_spacing != "average" and random.random() < _SMALL:
        eyes = random.choice(EYE_SPACING[identity.eye_spacing]).format(eyes=eyes)
    main = 1 - 0.6 * (1 - keep)
    told = [(random.choice(SKIN[identity.skin]), main), (hair, main), (eyes, keep)]
    for words, value, share in (
        (GLASSES, identity.glasses, main),
        (FACIAL_HAIR, identity.facial_hair, main),
        (FRECKLES, identity.freckles, _SMALL),
    ):
        told.append((random.choice(words[value]), share if value != "none" else _ABSENT))
    for words, value in ((BROWS, identity.brows), (NOSE, identity.nose), (FACE, identity.face)):
        told.append((random.choice(words[value]), _SMALL))
    traits = [trait for trait, share in told if random.random() < share]
    if random.random() < 0.7:
        random.shuffle(traits)
    return traits
