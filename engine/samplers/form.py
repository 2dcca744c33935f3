"""Linear forms over what a step reads, so that a sampler's compilation reads like its paper.

A form is a `[INPUT_PLANES]` float64 vector of coefficients: `X - sigma * E` means "x minus sigma times the
model's output".
"""

from __future__ import annotations

import numpy as np

from .schedule import PredictionType
from .table import INPUT_PLANES, FloatArray


def _basis(plane: int) -> FloatArray:
    form = np.zeros(INPUT_PLANES)
    form[plane] = 1.0
    form.setflags(write=False)
    return form


X, H1, H2, Y, E, Z = (_basis(plane) for plane in range(INPUT_PLANES))


def predicted_x0(prediction_type: PredictionType, alpha: float, sigma: float) -> FloatArray:
    """Return the form of the predicted picture, where `x = alpha * x0 + sigma * noise`.

    Source: formula (12) of DDIM (arXiv 2010.02502); for v, section 2.4 of Imagen Video (arXiv 2210.02303),
        which
    supposes `alpha**2 + sigma**2 == 1`.
    """
    if prediction_type == "epsilon":
        return (X - sigma * E) / alpha
    return alpha * X - sigma * E


def predicted_noise(prediction_type: PredictionType, alpha: float, sigma: float) -> FloatArray:
    """Return the form of the predicted noise; arguments and sources as for `predicted_x0`."""
    if prediction_type == "epsilon":
        return E
    return alpha * E + sigma * X
