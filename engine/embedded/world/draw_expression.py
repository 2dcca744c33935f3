"""Draw the parts of the face that move: brows, eyes and mouth."""

from collections.abc import Mapping
from types import MappingProxyType

from engine.embedded.world.draw_head import FACE_X
from engine.embedded.world.identity import Identity
from engine.embedded.world.palette import HAIR, INK, IRIS
from engine.embedded.world.pen import Colour, Pen, Point, mix

EYE_Y, MOUTH_Y = 62.0, 80.5
EYE_DX: Mapping[str, float] = MappingProxyType({"close": 9.8, "average": 11.5, "wide": 13.4})
_MOUTH_ZOOM = 1.16
_GAZE: Mapping[str, float] = MappingProxyType({"ahead": 0.0, "left": -2.8, "right": 2.8})
_BROW_WIDTH: Mapping[str, float] = MappingProxyType({"thin": 1.7, "bushy": 4.3})
WHITE: Colour = (255, 255, 255)
LIP: Colour = (168, 44, 58)


def draw_expression(pen: Pen, identity: Identity, expression: str, gaze: str) -> None:
    """Draw brows, eyes and mouth."""
    brow = mix(HAIR[identity.hair_colour], INK, 0.4)
    rise, slant = {
        "neutral": (-0.4, 0.0),
        "smile": (0.8, 0.4),
        "laugh": (2.2, 0.6),
        "sad": (0.8, -4.2),
        "surprised": (4.8, 0.8),
    }[expression]
    for side in (-1, 1):
        x = FACE_X + side * EYE_DX[identity.eye_spacing]
        inner, outer = (x - side * 5.8, 52.6 - rise + slant), (x + side * 6.3, 52.8 - rise - slant * 0.6)
        pen.stroke([inner, (x, 51.0 - rise), outer], _BROW_WIDTH[identity.brows], brow)
        # Bold features have larger eyes.
        eye = pen.moved(zoom=0.64 + 0.36 * pen.bold, centre=(x, EYE_Y), to=(x, EYE_Y))
        _eye(eye, x, IRIS[identity.eyes], expression, _GAZE[gaze])
    mouth = (FACE_X, MOUTH_Y)
    _mouth(pen.moved(zoom=_MOUTH_ZOOM, centre=mouth, to=mouth), expression)


def _eye(pen: Pen, x: float, iris: Colour, expression: str, gaze: float) -> None:
    if expression == "laugh":
        pen.ellipse(x + gaze * 0.5, EYE_Y + 1.6, 3.6, 2.2, iris)
        pen.stroke([(x - 6.4, EYE_Y + 2.4), (x - 3.2, EYE_Y - 1.8), (x, EYE_Y - 3), (x + 3.2, EYE_Y - 1.8),
                    (x + 6.4, EYE_Y + 2.4)], 2.5, INK)  # fmt: skip
        return
    tall = {"neutral": 5.0, "smile": 5.2, "sad": 4.4, "surprised": 7.6}[expression]
    wide = 4.0 if expression != "surprised" else 3.7
    pen.ellipse(x, EYE_Y, 6.8, tall + 0.9, INK)
    pen.ellipse(x, EYE_Y + 0.7, 6.3, tall, WHITE)
    x += gaze
    pen.ellipse(x, EYE_Y + 0.4, wide, min(wide + 0.4, tall), iris)
    pen.ellipse(x, EYE_Y + 0.4, 1.9, 1.9, (16, 12, 18))
    pen.ellipse(x + 1.5, EYE_Y - 1.3, 1.2, 1.2, WHITE)


def _mouth(pen: Pen, expression: str) -> None:
    x, y = FACE_X, MOUTH_Y
    if expression == "neutral":
        pen.stroke([(x - 6.5, y), (x + 6.5, y)], 2.2, LIP)
    elif expression == "smile":
        smile: list[Point] = [
            (x - 10, y - 3.2),
            (x - 6, y + 1),
            (x, y + 3),
            (x + 6, y + 1),
            (x + 10, y - 3.2),
        ]
        pen.stroke(smile, 2.4, LIP)
    elif expression == "laugh":
        pen.blob([(x - 10, y - 3), (x, y - 2.2), (x + 10, y - 3), (x + 6.5, y + 4.6), (x, y + 7), (x - 6.5, y + 4.6)],
                 (120, 24, 40))  # fmt: skip
        pen.ellipse(x, y + 4.6, 4.2, 1.8, (226, 96, 104))
        pen.polygon([(x - 8, y - 2.4), (x + 8, y - 2.4), (x + 6.5, y + 0.8), (x - 6.5, y + 0.8)], WHITE)
    elif expression == "sad":
        pen.stroke([(x - 8.4, y + 4.4), (x - 5, y + 0.8), (x, y - 0.6), (x + 5, y + 0.8), (x + 8.4, y + 4.4)],
                   2.4, LIP)  # fmt: skip
    else:
        pen.ellipse(x, y + 1.8, 5.0, 6.2, LIP)
        pen.ellipse(x, y + 2.0, 3.4, 4.5, (96, 18, 34))
