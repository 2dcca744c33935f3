"""Turn a flat picture into a pencil sketch, a watercolour or pixel art, with textures that never change."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.float32]

BLOCKS = 32
_PAPER = np.array((250, 246, 236), dtype=np.float32)
_PENCIL = np.array((58, 50, 60), dtype=np.float32)


def style_picture(flat: Image.Image, lit: Image.Image, style: str) -> Image.Image:
    """Return `lit` in one of `SCENE_VALUES["style"]`; `flat` is the same picture before it was lit."""
    if style == "sketch":
        return _image(_sketch(flat, lit))
    if style == "watercolour":
        return _image(_watercolour(lit))
    if style == "pixel":
        return _pixel(lit)
    return lit


def _sketch(flat: Image.Image, lit: Image.Image) -> Pixels:
    around = _pixels(flat.filter(ImageFilter.GaussianBlur(1.3 * flat.width / 128)))
    line = np.clip(((around - _pixels(flat)).max(axis=2) - 7) / 42, 0, 0.84)[:, :, None]
    wash = _hatch(flat.width)[:, :, None]
    colour = _PAPER + (_pixels(lit) - _PAPER) * wash
    drawn: Pixels = colour + (_PENCIL - colour) * line
    return drawn


def _watercolour(lit: Image.Image) -> Pixels:
    rows, columns, pigment, paper = _wash(lit.width)
    scale = lit.width / 128
    soft = lit.filter(ImageFilter.GaussianBlur(0.7 * scale))
    wide = lit.filter(ImageFilter.GaussianBlur(2.6 * scale))
    colour, around = _pixels(soft)[rows, columns], _pixels(wide)[rows, columns]
    colour -= 0.62 * np.clip(around - colour, 0, 60)
    colour = 255 - (255 - colour) * pigment
    painted: Pixels = colour + (_PAPER + 3 - colour) * paper
    return painted


def _pixel(lit: Image.Image) -> Image.Image:
    blocks = lit.resize((BLOCKS, BLOCKS), Image.Resampling.BOX)
    small, around = _pixels(blocks), _pixels(blocks.filter(ImageFilter.BoxBlur(1)))
    bold = np.clip((small - 128) * 1.1 + 130 + 0.3 * (small - around), 0, 255)
    return _image((np.round(bold / 17) * 17).astype(np.float32)).resize(lit.size, Image.Resampling.NEAREST)


@lru_cache(maxsize=8)
def _hatch(size: int) -> Pixels:
    """Return how much colour the pencil leaves on the paper, `[size, size]`, in slanted strokes.

    The strokes repeat every 8 pixels of 128, as the autoencoder's cells do.
    """
    y, x = np.mgrid[0:size, 0:size] * (128 / size)
    strokes = np.sin((x + y) * (2 * np.pi / 8))
    share: Pixels = (0.63 + 0.07 * strokes).astype(np.float32)
    return share


@lru_cache(maxsize=8)
def _wash(size: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Pixels, Pixels]:
    """Return where each pixel's colour flowed from (rows, columns), how dense it is, and the bare paper."""
    y, x = np.mgrid[0:size, 0:size]
    scale = size / 128
    # The face, in the middle, flows less, so that it stays recognisable.
    centre = np.exp(-(((x - size * 0.5) / (size * 0.2)) ** 2) - ((y - size * 0.53) / (size * 0.25)) ** 2)
    flow = 2.0 * scale * (1 - 0.7 * centre)
    rows = np.clip(np.rint(y + flow * _noise(size, 10, 1)), 0, size - 1).astype(np.intp)
    columns = np.clip(np.rint(x + flow * _noise(size, 10, 2)), 0, size - 1).astype(np.intp)
    pigment = 0.86 + 0.10 * _noise(size, 7, 3) + 0.05 * _noise(size, 40, 4)
    border = np.minimum(np.minimum(x, size - 1 - x), np.minimum(y, size - 1 - y)) / scale
    bare = 1 / (1 + np.exp((border - 4.5 - 3.4 * _noise(size, 9, 5)) * 1.1))
    return rows, columns, pigment[:, :, None].astype(np.float32), bare[:, :, None].astype(np.float32)


def _noise(size: int, cells: int, seed: int) -> NDArray[np.float64]:
    """Return smooth fixed noise about in -1 .. 1, with `cells` bumps across."""
    coarse = np.random.default_rng(seed).uniform(-1, 1, (cells, cells)).astype(np.float32)
    smooth = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(smooth, dtype=np.float64) * 1.3


def _pixels(image: Image.Image) -> Pixels:
    return np.asarray(image, dtype=np.float32)


def _image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8), "RGB")
