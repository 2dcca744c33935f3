"""Plot accuracy along each axis of the grid, with Pillow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

Curve = Sequence[tuple[float, float]]

_INK, _FAINT, _GRID = (30, 30, 34), (110, 110, 118), (228, 228, 232)
COLOURS = ((31, 95, 191), (214, 96, 30), (120, 120, 128), (52, 140, 80))
# Drawn so many times larger and averaged down: Pillow's lines have no antialiasing.
_FINE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Hold one axis: curves `[(x, share), ...]` by name, over the axis' own ticks, evenly spaced.

    `chosen` is the value that the main setting has; it gets a vertical line.
    """

    title: str
    curves: Mapping[str, Curve]
    chosen: float


def plot(panels: Sequence[Panel], *, width: int = 400, height: int = 300) -> Image.Image:
    """Return panels side by side, shares from 0 to 100 % on a common scale."""
    sheet = Image.new("RGB", (width * len(panels) * _FINE, height * _FINE), "white")
    for number, panel in enumerate(panels):
        part = _panel(panel, width * _FINE, height * _FINE)
        sheet.paste(part, (number * width * _FINE, 0))
    return sheet.resize((width * len(panels), height), Image.Resampling.LANCZOS)


def _panel(panel: Panel, width: int, height: int) -> Image.Image:
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    small, title = (ImageFont.load_default(size * _FINE) for size in (12, 14))
    left, right, top, bottom = 48 * _FINE, width - 16 * _FINE, 58 * _FINE, height - 36 * _FINE
    ticks = sorted({x for curve in panel.curves.values() for x, _ in curve})
    step = (right - left) / max(1, len(ticks) - 1)
    place = {x: left + step * number for number, x in enumerate(ticks)}

    def level(share: float) -> float:
        return bottom - share * (bottom - top)

    draw.text((left, 10 * _FINE), panel.title, fill=_INK, font=title)
    for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        draw.line((left, level(share), right, level(share)), fill=_GRID, width=_FINE)
        draw.text((left - 8 * _FINE, level(share)), f"{share:.0%}", fill=_FAINT, font=small, anchor="rm")
    if panel.chosen in place:
        x = place[panel.chosen]
        draw.line((x, top, x, bottom), fill=(200, 200, 206), width=2 * _FINE)
    for tick, x in place.items():
        draw.text((x, bottom + 10 * _FINE), f"{tick:g}", fill=_FAINT, font=small, anchor="mt")
    legend = float(left)
    for (name, curve), colour in zip(panel.curves.items(), COLOURS, strict=False):
        points = [(place[x], level(share)) for x, share in sorted(curve)]
        if len(points) > 1:
            draw.line(points, fill=colour, width=2 * _FINE, joint="curve")
        for x, y in points:
            draw.circle((x, y), 3.5 * _FINE, fill=colour)
        draw.rectangle((legend, 37 * _FINE, legend + 10 * _FINE, 41 * _FINE), fill=colour)
        draw.text((legend + 15 * _FINE, 39 * _FINE), name, fill=_INK, font=small, anchor="lm")
        legend += 15 * _FINE + draw.textlength(name, font=small) + 16 * _FINE
    return image
