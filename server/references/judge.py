"""Judge how well a picture will serve as a reference, without rejecting it.

Thresholds were set on nine photographs and on 300 portraits that the project draws, clean and degraded: each
stands between the worst value of a clean one and the values of degradation that spoils a reference. They are
advice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server.references.measures import blockiness, blur_effect, clipped_share, tone_range, vivid_share
from server.references.record import ReferenceWarning, ReferenceWarningCode

_SIDE = 256
"""Shorter side of the copy that is judged: about what image encoders see, so that only what they would
miss counts."""

_MAX_ASPECT = 2.0
"""Beyond it the centre crop loses more than half of the picture."""

_MAX_BLUR = 0.65
"""Clean pictures measured 0.11 to 0.43; a Gaussian blur of 2.5 pixels of 256 gave 0.66 to 0.79."""

_MIN_CONTRAST = 0.22
"""Clean pictures measured 0.28 to 0.95 of the range of tones; a quarter of their contrast left 0.12 to
0.24."""

_MAX_BLOCKINESS = 4.5
"""Clean pictures measured up to 2.1, JPEG of quality 50 1.3 to 3.9, of quality 15 mostly 4.4 to 9."""

_MAX_VIVID = 0.3
"""Clean pictures had at most 14% of pixels this saturated; saturation times 5 gave 20 to 97%."""

_MAX_CLIPPED = 0.3
"""Clean pictures had at most 11% of their middle clipped; contrast times 5 gave mostly 50 to 95%."""


def judge(
    picture: Image.Image, *, width: int, height: int, encoder_size: int
) -> tuple[ReferenceWarning, ...]:
    """Return findings about ``picture`` (RGB). Blocks: call it through ``ImagingPool``.

    ``width`` and ``height`` are the file's; ``encoder_size`` is the side in pixels that the image encoder
    takes.
    """
    copy = _copy(picture)
    tones = np.asarray(copy.convert("L"), dtype=np.float32) / np.float32(255)
    found = [
        _small(min(width, height), encoder_size),
        _extreme_aspect(max(width, height) / min(width, height)),
        # Sharpness can only be told where there are tones to tell apart.
        _low_contrast(tones) or _blurred(tones),
        _compressed(picture),
        _filtered(copy),
    ]
    return tuple(warning for warning in found if warning is not None)


def _small(side: int, encoder_size: int) -> ReferenceWarning | None:
    if side >= encoder_size:
        return None
    return ReferenceWarning(
        code=ReferenceWarningCode.SMALL,
        message=f"The shorter side has {side} pixels; the image encoder takes {encoder_size}.",
        action=f"Use a picture with at least {encoder_size} pixels on its shorter side.",
    )


def _extreme_aspect(aspect: float) -> ReferenceWarning | None:
    if aspect <= _MAX_ASPECT:
        return None
    return ReferenceWarning(
        code=ReferenceWarningCode.EXTREME_ASPECT,
        message=f"One side is {aspect:.1f} times the other; only the square in the middle is used.",
        action="Crop the picture to a square around the face.",
    )


def _low_contrast(tones: NDArray[np.float32]) -> ReferenceWarning | None:
    contrast = tone_range(tones)
    if contrast >= _MIN_CONTRAST:
        return None
    return ReferenceWarning(
        code=ReferenceWarningCode.LOW_CONTRAST,
        message=f"The tones span only {contrast:.0%} of the range.",
        action="Use an evenly lit picture without haze or fading.",
    )


def _blurred(tones: NDArray[np.float32]) -> ReferenceWarning | None:
    blur = blur_effect(tones)
    if blur <= _MAX_BLUR:
        return None
    return ReferenceWarning(
        code=ReferenceWarningCode.BLURRED,
        message=f"There is little fine detail (blur {blur:.2f} of 1; sharp pictures stay below {_MAX_BLUR}).",
        action="Use a sharp picture, and none that was enlarged or smoothed.",
    )


def _compressed(picture: Image.Image) -> ReferenceWarning | None:
    blocks = blockiness(picture)
    if blocks <= _MAX_BLOCKINESS:
        return None
    return ReferenceWarning(
        code=ReferenceWarningCode.COMPRESSED,
        message=f"Compression left visible blocks ({blocks:.1f} times the steps between other pixels).",
        action="Use the original file, or save at a higher quality; not a screenshot or a thumbnail.",
    )


def _filtered(copy: Image.Image) -> ReferenceWarning | None:
    vivid, clipped = vivid_share(copy), clipped_share(copy)
    if vivid > _MAX_VIVID:
        what = f"{vivid:.0%} of the picture is saturated to the limit"
    elif clipped > _MAX_CLIPPED:
        what = f"{clipped:.0%} of the picture's middle is clipped to a limit of tone or colour"
    else:
        return None
    return ReferenceWarning(
        code=ReferenceWarningCode.FILTERED,
        message=f"{what}, as by a strong filter.",
        action="Use an unedited picture with natural colours and light.",
    )


def _copy(picture: Image.Image) -> Image.Image:
    """Return the picture with its shorter side reduced to ``_SIDE``, of very long ones the middle."""
    width, height = picture.size
    longest = int(4 * min(width, height))
    if max(width, height) > longest:
        left, top = max(0, width - longest) // 2, max(0, height - longest) // 2
        picture = picture.crop((left, top, min(width, left + longest), min(height, top + longest)))
        width, height = picture.size
    scale = _SIDE / min(width, height)
    if scale >= 1:
        return picture
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
