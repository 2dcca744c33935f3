"""What can be measured of a picture, with numpy alone; :mod:`server.references.judge` says what it means."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_BLOCK = 8
"""JPEG's blocks, in pixels."""


def tone_range(tones: NDArray[np.float32]) -> float:
    """Return the range from the 2nd to the 98th percentile of ``tones`` ``[H, W]`` in 0 to 1."""
    low, high = np.percentile(tones, (2, 98))
    return float(high - low)


def blur_effect(tones: NDArray[np.float32]) -> float:
    """Return 0 (sharp) to 1 (blurred): what share of the differences between neighbours survives blurring
    again.

    F. Crete et al., "The blur effect: perception and estimation with a new no-reference perceptual blur
    metric", SPIE 6492 (2007). It depends little on what the picture shows, unlike the Laplacian's variance.
    """
    worst = 0.0
    for axis in (0, 1):
        steps = np.abs(np.diff(tones, axis=axis))
        blurred_steps = np.abs(np.diff(_box_blur(tones, axis), axis=axis))
        total = float(steps.sum())
        lost = float(np.maximum(0.0, steps - blurred_steps).sum())
        worst = max(worst, (total - lost) / total if total > 0 else 0.0)
    return worst


def blockiness(picture: Image.Image) -> float:
    """Return how much larger the steps at the borders of JPEG's blocks are than elsewhere; about 1 without
    blocks.

    Measured on the middle 512 pixels at full resolution, on the grid that starts at the picture's corner.
    Steps are taken beyond the local slope and capped, so that edges of the subject count little. The grid of
    a large JPEG that was decoded at a fraction is lost, and so are its blocks by the time that an encoder
    sees them.
    """
    width, height = picture.size
    left, top = (max(0, side - 512) // 2 // _BLOCK * _BLOCK for side in (width, height))
    middle = picture.crop((left, top, min(width, left + 512), min(height, top + 512))).convert("L")
    tones = np.asarray(middle, dtype=np.int16)
    return max(_steps_at_borders(tones), _steps_at_borders(tones.T))


def _steps_at_borders(tones: NDArray[np.int16]) -> float:
    if tones.shape[1] < 3 * _BLOCK:
        return 0.0
    steps = np.abs(np.diff(tones, axis=1))
    beyond = steps[:, 1:-1] - (steps[:, :-2] + steps[:, 2:]) // 2
    profile = np.clip(beyond, 0, 24).mean(axis=0)
    # Column k of the profile is the step from pixel k+1 to k+2: borders of blocks are at 6, 14, ...
    at_border = np.arange(len(profile)) % _BLOCK == _BLOCK - 2
    return float(profile[at_border].mean() / (profile[~at_border].mean() + 0.05))


def vivid_share(picture: Image.Image) -> float:
    """Return the share of pixels that are bright and all but fully saturated."""
    hsv = np.asarray(picture.convert("HSV"))
    return float(((hsv[..., 1] > 229) & (hsv[..., 2] > 102)).mean())


def clipped_share(picture: Image.Image) -> float:
    """Return the share of the middle's pixels with two or three channels at a limit.

    Backgrounds may well be plain white, hence the middle; one channel alone is at 255 in bright skin.
    """
    width, height = picture.size
    middle = picture.crop((width // 5, height // 5, width - width // 5, height - height // 5))
    pixels = np.asarray(middle)
    return float((((pixels <= 1) | (pixels >= 254)).sum(axis=-1) >= 2).mean())


def _box_blur(tones: NDArray[np.float32], axis: int, size: int = 9) -> NDArray[np.float64]:
    """Return the mean over ``size`` neighbours along ``axis``, edges repeated."""
    padding = [(0, 0), (0, 0)]
    padding[axis] = (size // 2 + 1, size // 2)
    sums = np.cumsum(np.pad(tones, padding, mode="edge"), axis=axis, dtype=np.float64)
    length = tones.shape[axis]
    ends = np.take(sums, range(size, size + length), axis=axis)
    blurred: NDArray[np.float64] = (ends - np.take(sums, range(length), axis=axis)) / size
    return blurred
