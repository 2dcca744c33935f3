"""Draw what a person wears on the face and the head: glasses and hats."""

from engine.embedded.world.draw_expression import EYE_DX, EYE_Y
from engine.embedded.world.draw_head import FACE_X
from engine.embedded.world.identity import Identity
from engine.embedded.world.palette import INK
from engine.embedded.world.pen import Colour, Pen

GOLD: Colour = (250, 200, 52)
RED: Colour = (176, 40, 48)
STRAW: Colour = (232, 196, 118)


def draw_glasses(pen: Pen, identity: Identity) -> None:
    """Draw round wire or square horn-rimmed glasses around the eyes; nothing for "none"."""
    glasses = identity.glasses
    if glasses == "none":
        return
    y, dx = EYE_Y + 0.8, EYE_DX[identity.eye_spacing]
    half = min(9.8, dx - 1.2)
    colour: Colour = RED if glasses == "round" else INK
    for side in (-1, 1):
        x = FACE_X + side * dx
        if glasses == "round":
            pen.ellipse(x, y, half - 0.8, half - 0.8, (255, 255, 255, 52))
            pen.ring(x, y, half, half, 2.0, colour)
        else:
            _frame(pen, x, y, half)
        pen.stroke([(x + side * (half - 0.2), y - 1.5), (FACE_X + side * 27, y - 3)], 2.0, colour)
    gap = dx - half + 0.7
    pen.stroke([(FACE_X - gap, y - 1), (FACE_X + gap, y - 1)], 2.2, colour)


def _frame(pen: Pen, x: float, y: float, half: float) -> None:
    corners = [*pen.pixel((x - half, y - 7.6)), *pen.pixel((x + half, y + 8.0))]
    width, radius = max(1, round(2.8 * pen.bold * pen.unit)), 2.4 * pen.unit
    pen.draw.rounded_rectangle(corners, radius=radius, fill=(255, 255, 255, 40))
    pen.draw.rounded_rectangle(corners, radius=radius, outline=INK, width=width)


def draw_hat(pen: Pen, hat: str) -> None:
    """Draw one of `SCENE_VALUES["hat"]`; nothing for "none"."""
    if hat == "beanie":
        pen.ellipse(64, 9, 6.5, 6.5, (240, 240, 236))
        pen.blob(
            [(33, 42), (36, 24), (50, 11), (64, 9), (78, 11), (92, 24), (95, 42), (64, 40)], (226, 112, 40)
        )
        pen.box(31.5, 34, 96.5, 45, (240, 146, 74), radius=4.5)
    elif hat == "cap":
        pen.blob(
            [(34, 42), (37, 23), (52, 13), (64, 11.5), (76, 13), (91, 23), (94, 42), (64, 38)], (40, 150, 160)
        )
        pen.blob(
            [(32, 40), (48, 35), (64, 33.5), (80, 35), (96, 40), (88, 46.5), (64, 43), (40, 46.5)],
            (24, 104, 116),
        )
        pen.ellipse(64, 11.5, 2.6, 2.0, (24, 104, 116))
    elif hat == "straw hat":
        pen.blob([(41, 38), (44, 18), (54, 10), (64, 9), (74, 10), (84, 18), (87, 38)], STRAW)
        pen.polygon([(41.5, 29), (86.5, 29), (87.5, 37), (40.5, 37)], (190, 62, 60))
        pen.ellipse(64, 39, 46, 7.2, STRAW)
        pen.ellipse(64, 37.4, 24, 2.2, (206, 166, 90))
    elif hat == "crown":
        pen.polygon(
            [(37, 38), (34, 12), (48, 24), (64, 6), (80, 24), (94, 12), (91, 38)],
            GOLD,
        )
        pen.box(36.5, 33, 91.5, 40, (226, 166, 30), radius=2)
        for x, y, colour in ((34, 12, (220, 40, 60)), (64, 7, (40, 110, 220)), (94, 12, (220, 40, 60))):
            pen.ellipse(x, y, 3.4, 3.4, colour)
        pen.ellipse(64, 27, 3.6, 4.4, (220, 40, 60))
