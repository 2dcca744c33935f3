"""Draw training batches for the denoiser: noised latents, captions, and pictures of the same people."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTokenizer

from engine.embedded.recipe.data import Drawings, identity_of, scene_of
from engine.embedded.recipe.towers import tokenise
from engine.embedded.recipe.training import Start
from engine.embedded.world import caption

MIN_SNR_GAMMA = 5.0


class Drawn(NamedTuple):
    """Say what the rows of a step are: numbers of drawings, timesteps, token numbers of captions.

    `drawing`, `timestep` `[B]`, `ids` `[B, 77]`; `reference` `[B]` are the drawings whose embeddings the adapter
    is given, -1 for none.
    """

    drawing: Tensor
    timestep: Tensor
    ids: Tensor
    reference: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Draw from drawings, at `timesteps` numbered from 0.

    Timesteps and modes are stratified over a batch: each batch covers their range evenly.
    """

    drawings: Drawings
    tokenizer: CLIPTokenizer
    timesteps: int
    random: np.random.Generator = field(default_factory=np.random.default_rng)
    words: Random = field(default_factory=Random)

    def started(self, start: Start, seed: int) -> "Batches":
        """Return batches that a run beginning at `start` has not seen."""
        return replace(
            self,
            random=np.random.default_rng([seed, start.step, start.rank]),
            words=Random(1000 * (start.step + 1) + start.rank),
        )

    def pick(self, batch: int) -> NDArray[np.int64]:
        """Return the numbers of random drawings."""
        return self.random.integers(0, len(self.drawings), batch)

    def modes(self, batch: int, shares: Sequence[float]) -> NDArray[np.int64]:
        """Return `[B]` numbers of modes, each in its share of the rows."""
        return np.searchsorted(np.cumsum(shares)[:-1], self._strata(batch), side="right").astype(np.int64)

    def drawn(
        self,
        index: NDArray[np.int64],
        *,
        empty: NDArray[np.bool_],
        described: NDArray[np.bool_],
        referenced: NDArray[np.bool_] | None = None,
    ) -> Drawn:
        """Return rows of drawings at stratified timesteps.

        A row of `empty` says nothing at all; one of `described` also says who is in the picture; one of `referenced`
        has another drawing of its person as reference.
        """
        texts = []
        for labels, silent, who in zip(self.drawings.labels[index], empty, described, strict=True):
            person = identity_of(labels) if who else None
            texts.append("" if silent else caption(scene_of(labels), self.words, identity=person))
        reference = np.full_like(index, -1)
        if referenced is not None:
            reference = np.where(referenced, self.drawings.other_scene(index, self.random), reference)
        return Drawn(
            drawing=torch.from_numpy(index),
            timestep=torch.from_numpy((self._strata(len(index)) * self.timesteps).astype(np.int64)),
            ids=tokenise(self.tokenizer, texts),
            reference=torch.from_numpy(reference),
        )

    def _strata(self, batch: int) -> NDArray[np.float64]:
        return (self.random.permutation(batch) + self.random.random(batch)) / batch


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
class Latents:
    """Hold all drawings' latents `[N, C, 16, 16]` f16 on the training device; `signal` is the schedule's alpha-bar."""

    values: Tensor
    signal: Tensor

    def noised(self, drawn: Drawn) -> Noised:
        """Return the drawings' latents at their timesteps, and the velocities (arXiv 2202.00512)."""
        device = self.values.device
        timestep = drawn.timestep.to(device)
        latents = self.values[drawn.drawing.to(device)].float()
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
