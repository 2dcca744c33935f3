"""Draw training batches: a noised scene, its caption, and another picture of the same person."""

from dataclasses import dataclass, field
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTokenizer

from engine.embedded.recipe.data import IDENTITY_NAMES, Drawings, identity_of, scene_of
from engine.embedded.recipe.towers import augment, normalise, tokenise
from engine.embedded.world import caption

MIN_SNR_GAMMA = 5.0
# An offset shared by a channel's pixels keeps the model from reading a backdrop's brightness out of the
# noise, which at 16x16 latents it could: SD's schedule ends at a signal-to-noise ratio above zero.
NOISE_OFFSET = 0.1
# A row's mode is a number below 20. Up to 11: caption and reference; up to 13: reference alone; up to 18:
# caption alone, which then mostly describes the person; 18: neither, the plain model's unconditional row;
# 19: neither, the adapter's, whose reference is the projection of a zero embedding, as diffusers makes it.
_MODES, _BOTH, _REFERENCE, _CAPTION, _ZERO_EMBED = 20, 11, 13, 18, 19
_UNSAID = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Hold one step's inputs; the labels serve the towers' heads, -100 where a caption says nothing.

    `sample`, `target` `[B, 4, 16, 16]`; `timestep`, `weight`, `referenced`, `embedded` `[B]`; `ids` `[B, 77]`;
    `pixels` `[B, 3, 128, 128]`; `said`, `seen` `[B, len(ATTRIBUTES)]`.
    """

    sample: Tensor
    target: Tensor
    weight: Tensor
    timestep: Tensor
    ids: Tensor
    pixels: Tensor
    referenced: Tensor
    embedded: Tensor
    said: Tensor
    seen: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Draw batches from drawings and their latents `[N, 4, 16, 16]`; `signal` is the schedule's alpha-bar."""

    drawings: Drawings
    latents: NDArray[np.float16]
    tokenizer: CLIPTokenizer
    signal: Tensor
    random: np.random.Generator = field(default_factory=np.random.default_rng)
    words: Random = field(default_factory=Random)

    def next(self, batch: int) -> Batch:
        """Return a batch of `batch` rows."""
        index = self.random.integers(0, len(self.drawings), batch)
        other = self.drawings.other_scene(index, self.random)
        mode = self._strata(batch, _MODES)
        timestep = torch.from_numpy(self._strata(batch, len(self.signal)))
        said = torch.from_numpy(self.drawings.labels[index].astype(np.int64))
        texts = [
            self._text(self.drawings.labels[i], int(m), said[k])
            for k, (i, m) in enumerate(zip(index, mode, strict=True))
        ]
        latents = torch.from_numpy(self.latents[index].astype(np.float32))
        noise = torch.randn_like(latents) + NOISE_OFFSET * torch.randn(batch, latents.shape[1], 1, 1)
        alpha = self.signal[timestep]
        a, s = alpha.sqrt()[:, None, None, None], (1 - alpha).sqrt()[:, None, None, None]
        snr = alpha / (1 - alpha)
        return Batch(
            sample=a * latents + s * noise,
            target=a * noise - s * latents,
            # min-SNR (arXiv 2303.09556) for v-prediction, whose plain weight is already SNR + 1.
            weight=snr.clamp(max=MIN_SNR_GAMMA) / (snr + 1),
            timestep=timestep,
            ids=tokenise(self.tokenizer, texts),
            pixels=augment(normalise(self.drawings.images[other])),
            referenced=torch.from_numpy(((mode < _REFERENCE) | (mode == _ZERO_EMBED)).astype(np.float32)),
            embedded=torch.from_numpy((mode != _ZERO_EMBED).astype(np.float32)),
            said=said,
            seen=torch.from_numpy(self.drawings.labels[other].astype(np.int64)),
        )

    def _strata(self, batch: int, below: int) -> NDArray[np.int64]:
        offsets = (self.random.permutation(batch) + self.random.random(batch)) / batch
        return np.minimum(below - 1, offsets * below).astype(np.int64)

    def _text(self, labels: NDArray[np.uint8], mode: int, said: Tensor) -> str:
        if _BOTH <= mode < _REFERENCE or mode >= _CAPTION:
            said[:] = _UNSAID
            return ""
        described = self.words.random() < (0.18 if mode < _BOTH else 0.8)
        if not described:
            said[: len(IDENTITY_NAMES)] = _UNSAID
        return caption(scene_of(labels), self.words, identity=identity_of(labels) if described else None)
