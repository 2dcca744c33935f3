"""Lay pictures out on a sheet, each over a small caption."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SHOWN = 1.5
_GAP, _MARGIN, _LINE = 12, 20, 14
_INK, _FAINT = (30, 30, 34), (96, 96, 104)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """Hold one picture `[H, W, 3]` and its caption; a tile without a picture leaves its place empty."""

    picture: NDArray[np.uint8] | None = None
    caption: str = ""
    strong: bool = False


def sheet(title: str, note: str, rows: Sequence[Sequence[Tile]], *, scale: float = SHOWN) -> Image.Image:
    """Return rows of tiles under a title and a note, each picture enlarged `scale` times (Lanczos)."""
    shapes = [tile.picture.shape for row in rows for tile in row if tile.picture is not None]
    if not shapes:
        raise ValueError("a sheet needs a picture")
    height, width = (round(max(shape[axis] for shape in shapes) * scale) for axis in (0, 1))
    columns = max(len(row) for row in rows)
    text, head = ImageFont.load_default(11), ImageFont.load_default(17)
    lines = [[wrapped(tile.caption, width, text) for tile in row] for row in rows]
    below = [_LINE * max(len(part) for part in row) + (6 if any(row) else 0) for row in lines]
    full = 2 * _MARGIN + columns * width + (columns - 1) * _GAP
    note_lines = wrapped(note, full - 2 * _MARGIN, ImageFont.load_default(12), most=4)
    top = _MARGIN + 26 + 16 * len(note_lines) + 8
    image = Image.new("RGB", (full, top + sum(height + part + _GAP for part in below) + 8), "white")
    draw = ImageDraw.Draw(image)
    draw.text((_MARGIN, _MARGIN - 4), title, fill=_INK, font=head)
    for number, line in enumerate(note_lines):
        draw.text((_MARGIN, _MARGIN + 22 + 16 * number), line, fill=_FAINT, font=ImageFont.load_default(12))
    y = top
    for row, captions, extra in zip(rows, lines, below, strict=True):
        for column, (tile, caption) in enumerate(zip(row, captions, strict=True)):
            x = _MARGIN + column * (width + _GAP)
            if tile.picture is not None:
                _paste(image, tile.picture, (x, y), scale)
            for number, line in enumerate(caption):
                place = (x, y + height + 4 + _LINE * number)
                draw.text(place, line, fill=_INK if tile.strong else _FAINT, font=text)
        y += height + extra + _GAP
    return image


def wrapped(
    text: str, width: float, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, most: int = 5
) -> list[str]:
    """Return text in lines at most `width` pixels wide; what is beyond `most` lines ends in an ellipsis."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    while last and font.getlength(f"{last} ...") > width:
        last = last[:-1].rstrip()
    return [*lines[: most - 1], f"{last} ..."]


def _paste(image: Image.Image, picture: NDArray[np.uint8], place: tuple[int, int], scale: float) -> None:
    height, width = picture.shape[:2]
    size = (round(width * scale), round(height * scale))
    image.paste(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS), place)
