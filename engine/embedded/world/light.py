"""Light a drawn picture: a colour cast, or a hard lamp from the left."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_CAST = {"warm": (1.06, 0.95, 0.77), "cool": (0.80, 0.94, 1.12)}


def light_picture(image: Image.Image, light: str) -> Image.Image:
    """Return the picture under one of `SCENE_VALUES["light"]`; "soft" leaves it as drawn."""
    if light == "soft":
        return image
    pixels = np.asarray(image, dtype=np.float32)
    lit = _dramatic(pixels) if light == "dramatic" else pixels * np.array(_CAST[light], dtype=np.float32)
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8), "RGB")


def _dramatic(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    width = pixels.shape[1]
    across = np.linspace(0, 1, width, dtype=np.float32)
    brightness = 0.42 + 0.70 / (1 + np.exp((across - 0.52) * 11))
    lit: NDArray[np.float32] = pixels * brightness[None, :, None].astype(np.float32)
    return lit
