"""Take the Frechet distance between two sets of feature vectors, as FID does (arXiv 1706.08500).

FID takes Inception's features; these are the reader's, so the figure compares with nothing but itself. Like
FID it falls as the sets grow: compare only figures of equal numbers of pictures.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def frechet_distance(a: Array, b: Array) -> float:
    """Return the squared Frechet distance of the normal distributions fitted to `[N, F]` and `[M, F]`.

    Raises ValueError for fewer than two vectors, or features that are not finite.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError("a covariance needs at least two vectors")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("features are not finite")
    return gaussian_distance(
        a.mean(axis=0), np.cov(a, rowvar=False, ddof=1), b.mean(axis=0), np.cov(b, rowvar=False, ddof=1)
    )


def gaussian_distance(mean_a: Array, cov_a: Array, mean_b: Array, cov_b: Array) -> float:
    """Return `|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^(1/2))`.

    The trace of the root is the sum of the roots of the eigenvalues of `r cov_b r`, `r` the root of `cov_a`:
    that matrix is symmetric, so nothing turns complex as a general matrix root does when a covariance is
    singular (fewer pictures than features). Eigenvalues below zero are rounding and count as zero.
    """
    values, vectors = np.linalg.eigh(np.atleast_2d(cov_a))
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    inner = root @ np.atleast_2d(cov_b) @ root
    trace = np.sqrt(np.linalg.eigvalsh((inner + inner.T) / 2).clip(min=0)).sum()
    gap = mean_a - mean_b
    distance = gap @ gap + np.trace(np.atleast_2d(cov_a)) + np.trace(np.atleast_2d(cov_b)) - 2 * trace
    return max(0.0, float(distance))
