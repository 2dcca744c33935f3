"""Draw shapes given in world units (a picture is 128 by 128) on a supersampled canvas."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from PIL import Image, ImageDraw

WORLD_SIZE = 128

Colour = tuple[int, int, int] | tuple[int, int, int, int]
Point = tuple[float, float]


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Return the colour that lies `share` of the way from `a` to `b`; alpha is dropped."""
    r, g, b_ = (round(x + (y - x) * share) for x, y in zip(a[:3], b[:3], strict=True))
    return r, g, b_


def spline(points: list[Point], steps: int = 8) -> tuple[Point, ...]:
    """Return a closed Catmull-Rom curve through `points`, `steps` segments to each span."""
    return _spline(tuple(points), steps)


@lru_cache(maxsize=256)
def _spline(points: tuple[Point, ...], steps: int) -> tuple[Point, ...]:
    curve: list[Point] = []
    n = len(points)
    for i in range(n):
        p0, p1, p2, p3 = (points[(i + k - 1) % n] for k in range(4))
        for s in range(steps):
            t = s / steps
            w0 = -0.5 * t + t * t - 0.5 * t**3
            w1 = 1 - 2.5 * t * t + 1.5 * t**3
            w2 = 0.5 * t + 2 * t * t - 1.5 * t**3
            w3 = -0.5 * t * t + 0.5 * t**3
            curve.append(
                (
                    w0 * p0[0] + w1 * p1[0] + w2 * p2[0] + w3 * p3[0],
                    w0 * p0[1] + w1 * p1[1] + w2 * p2[1] + w3 * p3[1],
                )
            )
    return tuple(curve)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pen:
    """Map world coordinates to pixels and draw; colours with an alpha are blended.

    A point (x, y) lands on `origin + unit * (x, y)` pixels; `bold` multiplies the width of lines.
    """

    draw: ImageDraw.ImageDraw
    unit: float
    origin: Point = (0.0, 0.0)
    bold: float = 1.0

    def moved(self, *, zoom: float, centre: Point, to: Point) -> "Pen":
        """Return a pen whose world is `zoom` times larger, with `centre` drawn where `to` was."""
        unit = self.unit * zoom
        x = self.origin[0] + self.unit * to[0] - unit * centre[0]
        y = self.origin[1] + self.unit * to[1] - unit * centre[1]
        return replace(self, unit=unit, origin=(x, y))

    def pixel(self, point: Point) -> Point:
        """Return where a world point lies on the canvas."""
        return self.origin[0] + self.unit * point[0], self.origin[1] + self.unit * point[1]

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        """Fill an ellipse around (x, y)."""
        self.draw.ellipse([*self.pixel((x - rx, y - ry)), *self.pixel((x + rx, y + ry))], fill=colour)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, radius: float = 0.0) -> None:
        """Fill a rectangle, its corners rounded by `radius`."""
        corners = [*self.pixel((x0, y0)), *self.pixel((x1, y1))]
        self.draw.rounded_rectangle(corners, radius=radius * self.unit, fill=colour)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """Fill a polygon."""
        self.draw.polygon([self.pixel(p) for p in points], fill=colour)

    def blob(self, points: list[Point], colour: Colour) -> None:
        """Fill the smooth closed curve through `points`."""
        self.polygon(spline(points), colour)

    def stroke(self, points: list[Point], width: float, colour: Colour) -> None:
        """Draw a line with round joints and ends."""
        width *= self.bold
        pixels = [self.pixel(p) for p in points]
        self.draw.line(pixels, fill=colour, width=max(1, round(width * self.unit)), joint="curve")
        for x, y in (points[0], points[-1]):
            self.ellipse(x, y, width / 2, width / 2, colour)

    def ring(self, x: float, y: float, rx: float, ry: float, width: float, colour: Colour) -> None:
        """Draw the outline of an ellipse."""
        corners = [*self.pixel((x - rx, y - ry)), *self.pixel((x + rx, y + ry))]
        self.draw.ellipse(corners, outline=colour, width=max(1, round(width * self.bold * self.unit)))


def pen_on(image: Image.Image) -> Pen:
    """Return a pen whose world fills a square picture."""
    return Pen(draw=ImageDraw.Draw(image, "RGBA"), unit=image.width / WORLD_SIZE)
