"""Draw the body, the head and the face that an identity and an expression give."""

from engine.embedded.world.identity import Identity
from engine.embedded.world.palette import CLOTH, HAIR, INK, IRIS, SKIN
from engine.embedded.world.pen import Colour, Pen, Point, mix

# World coordinates of the face at medium framing; hair, hats and glasses are drawn around them.
FACE_X, FACE_Y = 64.0, 62.0
EYE_Y, EYE_DX = 62.0, 11.5
MOUTH_Y = 80.5
BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)


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


def draw_body(pen: Pen, identity: Identity, clothing: str) -> None:
    """Draw neck and sweater."""
    skin, cloth = SKIN[identity.skin], CLOTH[clothing]
    shade = mix(cloth, BLACK, 0.22)
    pen.blob(
        [(64, 104), (86, 107), (108, 113), (118, 130), (122, 170), (6, 170), (10, 130), (20, 113), (42, 107)],
        cloth,
    )
    for side in (-1, 1):
        pen.stroke([(64 + side * 34, 124), (64 + side * 37, 150)], 2.2, shade)
    pen.ellipse(64, 106, 17.5, 8.5, shade)
    pen.box(53, 84, 75, 106, skin)
    pen.ellipse(64, 105, 13, 6.5, skin)
    pen.blob([(53, 88), (64, 95), (75, 88), (75, 97), (64, 103), (53, 97)], mix(skin, BLACK, 0.2))


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
    pen.blob([(64, 64), (66.6, 71.5), (64, 73.6), (61.4, 71.5)], shade)


def draw_expression(pen: Pen, identity: Identity, expression: str) -> None:
    """Draw brows, eyes and mouth."""
    brow = mix(HAIR[identity.hair_colour], INK, 0.4)
    rise, slant = {
        "neutral": (0.0, 0.0),
        "smile": (0.6, 0.4),
        "laugh": (1.6, 0.6),
        "sad": (0.6, -2.6),
        "surprised": (4.0, 0.8),
    }[expression]
    for side in (-1, 1):
        x = FACE_X + side * EYE_DX
        inner, outer = (x - side * 5.5, 52.6 - rise + slant), (x + side * 6, 52.8 - rise - slant * 0.6)
        middle = (x, 51.0 - rise)
        pen.stroke([inner, middle, outer], 2.5, brow)
        _eye(pen, x, side, identity, expression)
    _mouth(pen, expression)


def _eye(pen: Pen, x: float, side: int, identity: Identity, expression: str) -> None:
    if expression == "laugh":
        pen.stroke([(x - 6, EYE_Y + 2), (x - 3, EYE_Y - 1.6), (x, EYE_Y - 2.6), (x + 3, EYE_Y - 1.6),
                    (x + 6, EYE_Y + 2)], 2.4, INK)  # fmt: skip
        pen.ellipse(x, EYE_Y + 1.6, 3.6, 2.2, IRIS[identity.eyes])
        return
    tall = {"neutral": 5.0, "smile": 5.0, "sad": 4.6, "surprised": 6.8}[expression]
    iris = 4.2
    pen.ellipse(x, EYE_Y, 6.6, tall + 0.9, INK)
    pen.ellipse(x, EYE_Y + 0.7, 6.2, tall, WHITE)
    pen.ellipse(x, EYE_Y + 0.4, iris, min(iris, tall), IRIS[identity.eyes])
    pen.ellipse(x, EYE_Y + 0.4, 1.9, 1.9, (16, 12, 18))
    pen.ellipse(x + 1.6, EYE_Y - 1.3, 1.2, 1.2, WHITE)


def _mouth(pen: Pen, expression: str) -> None:
    x, y, lip = FACE_X, MOUTH_Y, (168, 52, 62)
    if expression == "neutral":
        pen.stroke([(x - 6.5, y), (x + 6.5, y)], 2.3, lip)
    elif expression == "smile":
        curve: list[Point] = [
            (x - 9.5, y - 2.4),
            (x - 6, y + 1.2),
            (x, y + 2.8),
            (x + 6, y + 1.2),
            (x + 9.5, y - 2.4),
        ]
        pen.stroke(curve, 2.4, lip)
    elif expression == "laugh":
        pen.blob([(x - 10, y - 3), (x, y - 2.2), (x + 10, y - 3), (x + 6.5, y + 4.6), (x, y + 7), (x - 6.5, y + 4.6)],
                 (120, 24, 40))  # fmt: skip
        pen.polygon([(x - 8, y - 2.4), (x + 8, y - 2.4), (x + 6.5, y + 0.6), (x - 6.5, y + 0.6)], WHITE)
    elif expression == "sad":
        pen.stroke(
            [(x - 7.5, y + 3.4), (x - 4.5, y + 0.6), (x, y - 0.6), (x + 4.5, y + 0.6), (x + 7.5, y + 3.4)],
            2.4,
            lip,
        )
    else:
        pen.ellipse(x, y + 1.6, 4.6, 5.6, lip)
        pen.ellipse(x, y + 1.8, 3.0, 3.9, (96, 18, 34))
