"""Draw neck and shoulders in one of four garments."""

from engine.embedded.world.identity import Identity
from engine.embedded.world.palette import CLOTH, SKIN
from engine.embedded.world.pen import Colour, Pen, Point, mix

BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)
SHOULDERS: list[Point] = [
    (64, 103), (86, 106), (108, 112), (118, 129), (122, 170), (6, 170), (10, 129), (20, 112), (42, 106),
]  # fmt: skip


def draw_body(pen: Pen, identity: Identity, clothing: str, garment: str) -> None:
    """Draw the neck in a `garment` whose colour is `clothing`."""
    cloth, skin = CLOTH[clothing], SKIN[identity.skin]
    shade = mix(cloth, BLACK, 0.22)
    if garment == "hoodie":
        pen.blob([(64, 82), (84, 85), (95, 96), (97, 108), (88, 114), (40, 114), (31, 108), (33, 96), (44, 85)],
                 mix(cloth, BLACK, 0.32))  # fmt: skip
    pen.blob(SHOULDERS, cloth)
    for side in (-1, 1):
        pen.stroke([(64 + side * 34, 123), (64 + side * 37, 150)], 2.2, shade)
    if garment == "sweater":
        pen.ellipse(64, 105, 18.5, 9.5, shade)
    elif garment == "jacket":
        pen.polygon([(49, 100), (79, 100), (74, 122), (70, 150), (58, 150), (54, 122)], (250, 250, 250))
    _neck(pen, skin)
    if garment == "hoodie":
        _hoodie(pen, cloth)
    elif garment == "shirt":
        _shirt(pen, cloth)
    elif garment == "jacket":
        _jacket(pen, cloth)


def _neck(pen: Pen, skin: Colour) -> None:
    pen.box(53, 84, 75, 104, skin)
    pen.ellipse(64, 103.5, 12.6, 6.5, skin)
    pen.blob([(53, 88), (64, 95), (75, 88), (75, 97), (64, 103), (53, 97)], mix(skin, BLACK, 0.2))


def _hoodie(pen: Pen, cloth: Colour) -> None:
    rim = mix(cloth, WHITE, 0.16) if sum(cloth[:3]) < 660 else mix(cloth, BLACK, 0.1)
    cord = (250, 250, 250) if sum(cloth[:3]) < 600 else (96, 84, 96)
    for side in (-1, 1):
        pen.blob([(64 + side * 20, 90), (64 + side * 28, 97), (64 + side * 25, 107), (64 + side * 12, 114),
                  (64 - side * 1, 116), (64 + side * 9, 107), (64 + side * 15, 99)], rim)  # fmt: skip
        pen.stroke([(64 + side * 6, 113), (64 + side * 7, 127)], 2.0, cord)
        pen.ellipse(64 + side * 7, 127.5, 1.8, 2.4, cord)


def _shirt(pen: Pen, cloth: Colour) -> None:
    edge, collar = mix(cloth, BLACK, 0.3), mix(cloth, WHITE, 0.22)
    pen.stroke([(64, 108), (64, 150)], 1.4, edge)
    for y in (116, 127, 138):
        pen.ellipse(66.4, y, 1.5, 1.5, edge if sum(cloth[:3]) > 560 else (250, 250, 250))
    for side in (-1, 1):
        points: list[Point] = [
            (64 + side * 12, 95),
            (64 + side * 19, 101),
            (64 + side * 15, 117),
            (64, 107.5),
        ]
        pen.polygon(points, collar)
        pen.stroke([*points, points[0]], 1.3, edge)


def _jacket(pen: Pen, cloth: Colour) -> None:
    edge, lapel = mix(cloth, BLACK, 0.45), mix(cloth, BLACK, 0.14)
    if sum(cloth[:3]) < 200:
        edge, lapel = mix(cloth, WHITE, 0.35), mix(cloth, WHITE, 0.16)
    for side in (-1, 1):
        points: list[Point] = [
            (64 + side * 13, 94), (64 + side * 21, 102), (64 + side * 25, 112), (64 + side * 19, 115),
            (64 + side * 22, 119), (64 + side * 6, 140), (64 + side * 9, 118),
        ]  # fmt: skip
        pen.polygon(points, lapel)
        pen.stroke([*points, points[0]], 1.2, edge)
