"""Draw what lies behind the person: plain backdrops and a few places."""

from engine.embedded.world.palette import BACKDROP, GRADIENT
from engine.embedded.world.pen import WORLD_SIZE, Colour, Pen, mix

WHITE: Colour = (255, 255, 255)


def draw_background(pen: Pen, background: str) -> None:
    """Fill the whole picture with one of `SCENE_VALUES["background"]`."""
    places = {
        "beach": _beach,
        "forest": _forest,
        "city": _city,
        "sunset": _sunset,
        "mountains": _mountains,
    }
    place = places.get(background)
    if place is not None:
        place(pen)
    elif background in GRADIENT:
        _gradient(pen, *GRADIENT[background], 0, WORLD_SIZE, bands=96)
    else:
        _backdrop(pen, BACKDROP[background])


def _backdrop(pen: Pen, colour: Colour) -> None:
    _gradient(pen, mix(colour, WHITE, 0.18), mix(colour, (0, 0, 0), 0.06), 0, WORLD_SIZE)


def _gradient(pen: Pen, top: Colour, bottom: Colour, y0: float, y1: float, bands: int = 48) -> None:
    height = (y1 - y0) / bands
    for band in range(bands):
        y = y0 + band * height
        colour = mix(top, bottom, band / (bands - 1))
        pen.box(-1, y, WORLD_SIZE + 1, y + height + 0.5, colour)


def _beach(pen: Pen) -> None:
    _gradient(pen, (112, 196, 246), (204, 236, 250), 0, 62)
    pen.ellipse(108, 20, 10, 10, (255, 240, 160))
    _gradient(pen, (24, 140, 190), (60, 186, 206), 62, 92)
    for x, y in ((10, 72), (30, 82), (100, 70), (118, 82)):
        pen.stroke([(x - 7, y), (x + 7, y)], 1.6, (190, 234, 240))
    pen.blob([(-20, 96), (30, 90), (80, 93), (150, 88), (150, 140), (-20, 140)], (244, 216, 160))


def _forest(pen: Pen) -> None:
    _gradient(pen, (196, 226, 170), (120, 176, 110), 0, WORLD_SIZE)
    for x, top, half, colour in (
        (4, 14, 20, (62, 128, 74)),
        (124, 18, 20, (62, 128, 74)),
        (28, 34, 15, (40, 104, 62)),
        (102, 30, 15, (40, 104, 62)),
        (64, 4, 18, (82, 148, 88)),
    ):
        pen.box(x - 2.5, 90, x + 2.5, 128, (92, 64, 44))
        for tier in range(3):
            y = top + tier * 24
            wide = half * (0.62 + 0.19 * tier)
            pen.polygon([(x, y), (x - wide, y + 36), (x + wide, y + 36)], colour)
    pen.box(-1, 114, 129, 129, (60, 112, 60))


def _city(pen: Pen) -> None:
    _gradient(pen, (18, 22, 62), (70, 62, 122), 0, WORLD_SIZE)
    pen.ellipse(22, 16, 7, 7, (246, 240, 206))
    towers = ((-4, 20, 44), (17, 17, 62), (35, 20, 34), (74, 18, 40), (93, 17, 24), (111, 22, 52))
    for x, width, top in towers:
        pen.box(x, top, x + width, 129, (34, 36, 72))
        for column in range(3):
            for row in range(9):
                if (column * 7 + row * 5 + x) % 3:
                    left, up = x + 2.6 + column * (width - 3) / 3, top + 5 + row * 9
                    pen.box(left, up, left + 3.4, up + 4.6, (255, 214, 112))


def _sunset(pen: Pen) -> None:
    _gradient(pen, (104, 60, 140), (246, 112, 84), 0, 60)
    _gradient(pen, (246, 112, 84), (255, 202, 96), 60, 100)
    pen.ellipse(100, 78, 19, 19, (255, 236, 150))
    pen.box(-1, 98, 129, 129, (96, 50, 96))
    for x, y, half in ((100, 103, 16), (100, 110, 11), (100, 117, 6)):
        pen.stroke([(x - half, y), (x + half, y)], 2.4, (255, 190, 110))


def _mountains(pen: Pen) -> None:
    _gradient(pen, (150, 200, 240), (226, 240, 250), 0, WORLD_SIZE)
    for x, top, half in ((18, 26, 44), (112, 20, 46), (64, 44, 40)):
        pen.polygon([(x, top), (x - half, 110), (x + half, 110)], (112, 124, 158))
        cap = 0.34
        left, right, foot = x - half * cap, x + half * cap, top + (110 - top) * cap
        pen.polygon([(x, top), (left, foot), (x, foot - 7), (right, foot)], (250, 252, 255))
    pen.blob([(-20, 106), (30, 100), (90, 104), (150, 98), (150, 140), (-20, 140)], (124, 172, 126))
