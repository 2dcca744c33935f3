"""Draw training batches for the denoiser: noised latents, captions, and pictures of the same people."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTokenizer

from engine.embedded.recipe.data import Drawings, identity_of, scene_of
from engine.embedded.recipe.towers import tokenise
from engine.embedded.world import caption

MIN_SNR_GAMMA = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Noised:
    """Hold latents on their way to noise: `sample`, `target` `[B, C, 16, 16]`; `timestep`, `weight` `[B]`."""

    sample: Tensor
    target: Tensor
    timestep: Tensor
    weight: Tensor

    def loss(self, predicted: Tensor) -> Tensor:
        """Return the weighted mean squared error of predicted velocities."""
        error = (predicted.float() - self.target).square().mean(dim=(1, 2, 3))
        return (error * self.weight).mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Draw from drawings and their latents `[N, C, 16, 16]`; `signal` is the schedule's alpha-bar.

    Timesteps and modes are stratified over a batch: each batch covers their range evenly.
    """

    drawings: Drawings
    latents: NDArray[np.float16]
    tokenizer: CLIPTokenizer
    signal: Tensor
    random: np.random.Generator = field(default_factory=np.random.default_rng)
    words: Random = field(default_factory=Random)

    def pick(self, batch: int) -> NDArray[np.int64]:
        """Return the numbers of random drawings."""
        return self.random.integers(0, len(self.drawings), batch)

    def modes(self, batch: int, shares: Sequence[float]) -> NDArray[np.int64]:
        """Return `[B]` numbers of modes, each in its share of the rows."""
        return np.searchsorted(np.cumsum(shares)[:-1], self._strata(batch), side="right").astype(np.int64)

    def noised(self, index: NDArray[np.int64]) -> Noised:
        """Return the drawings' latents at stratified timesteps, and the velocities (arXiv 2202.00512)."""
        timestep = torch.from_numpy((self._strata(len(index)) * len(self.signal)).astype(np.int64))
        latents = torch.from_numpy(self.latents[index].astype(np.float32))
        noise = torch.randn_like(latents)
        alpha = self.signal[timestep]
        a, s = alpha.sqrt()[:, None, None, None], (1 - alpha).sqrt()[:, None, None, None]
        snr = alpha / (1 - alpha)
        return Noised(
            sample=a * latents + s * noise,
            target=a * noise - s * latents,
            timestep=timestep,
            # min-SNR (arXiv 2303.09556) for v-prediction, whose plain weight is already SNR + 1.
            weight=snr.clamp(max=MIN_SNR_GAMMA) / (snr + 1),
        )

    def captions(
        self, index: NDArray[np.int64], *, empty: NDArray[np.bool_], described: NDArray[np.bool_]
    ) -> Tensor:
        """Return the drawings' captions as token numbers `[B, 77]`.

        A row of `empty` says nothing at all; one of `described` also says who is in the picture.
        """
        texts = []
        for labels, silent, who in zip(self.drawings.labels[index], empty, described, strict=True):
            person = identity_of(labels) if who else None
            texts.append("" if silent else caption(scene_of(labels), self.words, identity=person))
        return tokenise(self.tokenizer, texts)

    def _strata(self, batch: int) -> NDArray[np.float64]:
        return (self.random.permutation(batch) + self.random.random(batch)) / batch
