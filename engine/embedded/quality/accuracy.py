"""Compare what was read from pictures with what they were told to show."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def by_attribute(
    read: NDArray[np.uint8], labels: NDArray[np.uint8], names: Sequence[str]
) -> dict[str, float]:
    """Return for each attribute the share of pictures `[N, A]` in which it was read as labelled."""
    if read.shape != labels.shape or read.shape[1] != len(names):
        raise ValueError(f"{list(read.shape)} read, {list(labels.shape)} labels, {len(names)} attributes")
    return {name: float((read[:, i] == labels[:, i]).mean()) for i, name in enumerate(names)}


def chance_by_attribute(
    read: NDArray[np.uint8], labels: NDArray[np.uint8], names: Sequence[str]
) -> dict[str, float]:
    """Return the mean accuracy of the same readings against the labels of the other pictures.

    The permutation baseline: what a generator scores that draws plausible portraits and ignores its input.
    Exact, over all ordered pairs of two different pictures, so it needs no random permutations.
    """
    count = len(read)
    if count < 2:
        raise ValueError("chance needs at least two pictures")
    scores = {}
    for i, name in enumerate(names):
        told = np.bincount(labels[:, i], minlength=256)
        matches = int(told[read[:, i]].sum()) - int((read[:, i] == labels[:, i]).sum())
        scores[name] = matches / (count * (count - 1))
    return scores


def mean_of(scores: Mapping[str, float], names: Sequence[str]) -> float:
    """Return the mean score over some attributes."""
    return float(np.mean([scores[name] for name in names]))


def standard_error(share: float, count: int) -> float:
    """Return the standard error of a share of `count` pictures."""
    return float(np.sqrt(share * (1 - share) / count))
