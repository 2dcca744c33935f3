"""Draw the head: its outline, ears, nose, freckles and blush."""

from engine.embedded.world.identity import Identity
from engine.embedded.world.palette import SKIN
from engine.embedded.world.pen import Colour, Pen, Point, mix

# World coordinates of the face at medium framing; hair, hats and glasses are drawn around them.
FACE_X = 64.0
_FRECKLES: tuple[Point, ...] = (
    (6.2, 69.6),
    (10.2, 68.8),
    (14.6, 69.6),
    (8.4, 72.4),
    (12.6, 72.8),
    (17.2, 72.2),
)


def face_outline(face: str) -> list[Point]:
    """Return the outline of the face, from the crown clockwise."""
    half, chin, jaw, low = {
        "oval": (24.0, 95.0, 18.0, 82.0),
        "round": (28.0, 91.5, 23.5, 80.0),
        "square": (25.5, 93.0, 23.5, 85.5),
    }[face]
    tip = {"oval": 7.5, "round": 11.0, "square": 14.5}[face]
    right = [(half * 0.72, 37.0), (half, 50.0), (half, 66.0), (jaw, low), (tip, chin - 1.5)]
    outline: list[Point] = [(FACE_X, 31.0)]
    outline += [(FACE_X + dx, y) for dx, y in right]
    outline.append((FACE_X, chin))
    outline += [(FACE_X - dx, y) for dx, y in reversed(right)]
    return outline


def draw_head(pen: Pen, identity: Identity) -> None:
    """Draw ears, face and nose."""
    skin = SKIN[identity.skin]
    shade = mix(skin, (120, 40, 30), 0.28)
    for side in (-1, 1):
        edge = FACE_X + side * {"oval": 24.5, "round": 28.0, "square": 26.0}[identity.face]
        pen.ellipse(edge, 64, 4.6, 6.4, skin)
        pen.ellipse(edge, 64.5, 2.2, 3.6, shade)
    pen.blob(face_outline(identity.face), skin)
    for side in (-1, 1):
        pen.ellipse(FACE_X + side * 15.5, 73.5, 5.2, 3.6, (240, 84, 84, 56))
    if identity.freckles == "freckles":
        _freckles(pen, skin)
    _nose(pen, identity.nose, skin, shade)


def _freckles(pen: Pen, skin: Colour) -> None:
    fleck = mix(skin, (120, 48, 16), 0.62) if sum(skin[:3]) > 240 else mix(skin, (214, 140, 96), 0.5)
    for side in (-1, 1):
        for dx, y in _FRECKLES:
            pen.ellipse(FACE_X + side * dx, y, 1.05, 0.95, fleck)


def _nose(pen: Pen, nose: str, skin: Colour, shade: Colour) -> None:
    x, dark = FACE_X, mix(skin, (90, 24, 20), 0.5)
    if nose == "small":
        pen.blob([(x, 68), (x + 2.2, 71.4), (x, 73.0), (x - 2.2, 71.4)], shade)
    elif nose == "broad":
        pen.blob([(x, 65.5), (x + 3, 69), (x + 7, 71.6), (x + 5, 74.6), (x, 74.2), (x - 5, 74.6), (x - 7, 71.6),
                  (x - 3, 69)], shade)  # fmt: skip
        for side in (-1, 1):
            pen.ellipse(x + side * 3.6, 73.0, 1.5, 1.0, dark)
    else:
        pen.blob([(x, 54), (x + 1.9, 65), (x + 3.6, 72.8), (x, 76.2), (x - 3.6, 72.8), (x - 1.9, 65)], shade)
        pen.stroke([(x - 2.0, 75.0), (x, 75.9), (x + 2.0, 75.0)], 1.1, dark)
