"""The variance-preserving path through a list of sigmas."""

from __future__ import annotations

import numpy as np

from .schedule import Float32Array


class VpPath:
    """Hold alpha, sigma and the half log-SNR lambda at each of `[N + 1]` descending noise levels.

    `alpha**2 + sigma**2 == 1` and `lam == log(alpha / sigma)`, which is infinite at sigma 0. All float64.
    """

    def __init__(self, sigmas: Float32Array) -> None:
        ratio = sigmas.astype(np.float64)
        self.alpha = 1 / np.sqrt(ratio**2 + 1)
        self.sigma = ratio * self.alpha
        with np.errstate(divide="ignore"):
            self.lam = -np.log(ratio)

    def exponential_step(self, n: int) -> tuple[float, float]:
        """Return `(sigma' / sigma, alpha' * (1 - exp(-h)))`, the weights of x and x0 from level n to n + 1.

        They solve the data-prediction ODE exactly for a constant x0: formula (9) of arXiv 2211.01095.
        """
        h = self.lam[n + 1] - self.lam[n]
        return float(self.sigma[n + 1] / self.sigma[n]), float(-self.alpha[n + 1] * np.expm1(-h))
