"""Pictures for the tests, as files."""

from __future__ import annotations

import struct
import zlib
from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image


def scenery(width: int = 96, height: int = 64) -> Image.Image:
    """A picture in which every corner differs, with gradients and edges."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    red = 40 + 180 * x
    green = 40 + 180 * y
    blue = np.where((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.08, 200, 60)
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


def file_of(image: Image.Image, format: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@cache
def bomb(width: int, height: int) -> bytes:
    """A PNG of a few KB that declares, and truly holds, `width` x `height` black pixels of one bit."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(9)
    row = b"\0" * (1 + (width + 7) // 8)
    rows = b"".join(packer.compress(row * 100) for _ in range(height // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def animation(format: str) -> bytes:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue")]
    return file_of(frames[0], format, save_all=True, append_images=frames[1:], duration=100)


def scanned(data: bytes, times: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    start, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:start] + data[start:end] * times + data[end:]
