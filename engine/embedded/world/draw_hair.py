"""Draw hair in two layers: what falls behind the head and what lies in front of it; and facial hair."""

import math

from engine.embedded.world.draw_head import face_outline
from engine.embedded.world.identity import Identity
from engine.embedded.world.palette import HAIR, INK
from engine.embedded.world.pen import Colour, Pen, Point, mix

WHITE: Colour = (255, 255, 255)


def draw_back_hair(pen: Pen, identity: Identity, *, covered: bool) -> None:
    """Draw the hair that the head and the body cover; a bun sits at the nape when a hat covers the crown."""
    colour = mix(HAIR[identity.hair_colour], INK, 0.22)
    style = identity.hair_style
    if style == "long":
        pen.blob([(64, 18), (92, 28), (99, 60), (101, 96), (104, 124), (84, 132), (64, 124), (44, 132),
                  (24, 124), (27, 96), (29, 60), (36, 28)], colour)  # fmt: skip
    elif style == "bob":
        pen.blob([(64, 19), (90, 27), (99, 54), (101, 84), (92, 93), (64, 94), (36, 93), (27, 84), (29, 54),
                  (38, 27)], colour)  # fmt: skip
    elif style == "curly":
        for step in range(16):
            angle = math.pi * (0.86 + 1.28 * step / 15)
            pen.ellipse(64 + 33 * math.cos(angle), 52 + 30 * math.sin(angle), 11.5, 11.5, colour)
    elif style == "pigtails":
        for side in (-1, 1):
            pen.blob([(64 + side * 28, 54), (64 + side * 42, 58), (64 + side * 50, 78), (64 + side * 46, 104),
                      (64 + side * 40, 110), (64 + side * 35, 92), (64 + side * 30, 72)], colour)  # fmt: skip
    elif style == "spiky":
        pen.polygon(_spikes(24.0, 41.0, 13, covered=covered), colour)
    elif style == "bun":
        if covered:
            pen.stroke([(88, 58), (90.5, 70), (90, 80)], 4.0, colour)
        _bun(pen, HAIR[identity.hair_colour], (91.0, 84.0) if covered else (64.0, 16.5))


def draw_front_hair(pen: Pen, identity: Identity) -> None:
    """Draw the hair that lies on the forehead and the temples."""
    hair = HAIR[identity.hair_colour]
    light = mix(hair, WHITE, 0.28)
    style = identity.hair_style
    if style == "bald":
        pen.ellipse(55, 40, 6.5, 3.2, (255, 255, 255, 90))
    elif style == "short":
        pen.blob([(37, 62), (35, 44), (43, 26), (64, 18), (85, 26), (93, 44), (91, 62), (88, 50), (80, 42),
                  (62, 42), (47, 46), (40, 50)], hair)  # fmt: skip
        pen.stroke([(47, 32), (57, 27), (68, 26)], 2.6, light)
    elif style == "spiky":
        pen.polygon(_spikes(21.0, 36.0, 11), hair)
        pen.polygon([(38, 58), (36, 40), (92, 40), (90, 58), (86, 44), (78, 50), (72, 42), (64, 50), (56, 42),
                     (50, 50), (42, 44)], hair)  # fmt: skip
    elif style == "curly":
        for step in range(11):
            angle = math.pi * (0.97 + 1.06 * step / 10)
            pen.ellipse(64 + 28 * math.cos(angle), 48 + 22 * math.sin(angle), 9.0, 9.0, hair)
        for x, y in ((50, 29), (64, 25), (78, 29)):
            pen.ellipse(x, y, 3.4, 2.6, light)
    elif style == "bun":
        pen.blob([(37.5, 60), (36, 46), (42, 28), (64, 19.5), (86, 28), (92, 46), (90.5, 60), (87, 48), (80, 36),
                  (64, 31.5), (48, 36), (41, 48)], hair)  # fmt: skip
        for side in (-1, 1):
            pen.stroke([(64 + side * 13, 31), (64 + side * 7, 24.5)], 1.5, light)
    elif style == "long":
        _parted(pen, hair, 82)
        pen.stroke([(44, 36), (52, 27), (61, 23)], 2.6, light)
    elif style == "bob":
        pen.blob([(33, 78), (31, 50), (40, 27), (64, 17), (88, 27), (97, 50), (95, 78), (90, 66), (88, 51),
                  (64, 50), (40, 51), (38, 66)], hair)  # fmt: skip
        pen.stroke([(44, 36), (53, 28), (66, 25)], 2.6, light)
    else:
        _parted(pen, hair, 58)
        for side in (-1, 1):
            pen.ellipse(64 + side * 30, 56, 4.2, 4.2, (246, 226, 92))


def draw_facial_hair(pen: Pen, identity: Identity) -> None:
    """Draw moustache or beard; the mouth is drawn over it."""
    colour = mix(HAIR[identity.hair_colour], INK, 0.16)
    if identity.facial_hair == "beard":
        outline = [p for p in face_outline(identity.face) if p[1] > 64]
        right, chin, left = (
            outline[: len(outline) // 2],
            outline[len(outline) // 2],
            outline[len(outline) // 2 + 1 :],
        )
        grown: list[Point] = [(x + 0.8, y + 1.0) for x, y in right] + [(chin[0], chin[1] + 4.0)]
        grown += [(x - 0.8, y + 1.0) for x, y in left]
        inner: list[Point] = [(45, 73), (52, 76.5), (58, 74.5), (64, 75.2), (70, 74.5), (76, 76.5), (83, 73)]
        pen.blob(grown + inner, colour)
    elif identity.facial_hair == "moustache":
        pen.blob(
            [(64, 73.6), (71, 73.8), (78, 79.4), (71, 78.6), (64, 77.6), (57, 78.6), (50, 79.4), (57, 73.8)],
            colour,
        )


def _bun(pen: Pen, hair: Colour, centre: Point) -> None:
    x, y = centre
    pen.ellipse(x, y, 12.5, 10.5, mix(hair, INK, 0.22))
    pen.ellipse(x, y - 0.6, 11.4, 9.4, hair)
    pen.stroke([(x - 6, y - 1.5), (x - 2, y - 5), (x + 4, y - 5)], 1.8, mix(hair, WHITE, 0.28))
    pen.stroke([(x - 5, y + 3), (x, y + 0.6), (x + 6, y + 2)], 1.4, mix(hair, INK, 0.3))


def _parted(pen: Pen, hair: Colour, low: float) -> None:
    for side in (-1, 1):
        pen.blob([(64 - side * 2, 19), (64 + side * 18, 21), (64 + side * 30, 36), (64 + side * 32, 54),
                  (64 + side * 29, low), (64 + side * 25, low - 12), (64 + side * 22, 46),
                  (64 + side * 8, 36), (64 - side * 4, 30)], hair)  # fmt: skip


def _spikes(inner: float, outer: float, count: int, *, covered: bool = False) -> list[Point]:
    points: list[Point] = []
    for step in range(2 * count + 1):
        angle = math.pi * (0.94 + 1.12 * step / (2 * count))
        reach = outer if step % 2 else inner + 3
        if covered and math.sin(angle) < -0.3:
            reach = inner
        points.append((64 + reach * 0.95 * math.cos(angle), 50 + reach * math.sin(angle)))
    return points
