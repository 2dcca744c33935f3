"""Train the denoiser: first the UNet with text alone, then the IP-Adapter with everything else frozen."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModel

from engine.embedded.recipe.adapter import AdaptedUnet
from engine.embedded.recipe.batches import Batches
from engine.embedded.recipe.progress import Progress
from engine.embedded.recipe.training import Plan, Start, train
from engine.embedded.recipe.workers import Crew

BATCH = 32
# Shares of rows whose caption says who and where, where alone, nothing (the unconditional rows of guidance).
_UNET_MODES = (0.68, 0.22, 0.10)
# Shares of rows with caption and reference, reference alone, caption alone, neither: the paper drops each
# condition in 5% of the rows and both in 5% (arXiv 2308.06721, section 4.1.2).
_ADAPTER_MODES = (0.85, 0.05, 0.05, 0.05)
# Beside a reference, a caption seldom says who: the picture does.
_DESCRIBED_BESIDE_REFERENCE = 0.15

Report = Callable[[dict[str, Tensor], Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoiserData:
    """Hold what both stages train on; `text` is frozen."""

    batches: Batches
    text: CLIPTextModel
    seed: int = 3

    def started(self, start: Start) -> Batches:
        """Return batches that a run beginning at `start` has not seen."""
        return replace(
            self.batches,
            random=np.random.default_rng([self.seed, start.step, start.rank]),
            words=Random(1000 * (start.step + 1) + start.rank),
        )

    def spoken(self, ids: Tensor) -> Tensor:
        """Return the captions' hidden states `[B, 77, D]`."""
        with torch.no_grad():
            states: Tensor = self.text(ids).last_hidden_state
        return states


def train_unet(
    crew: Crew, plan: Plan, unet: UNet2DConditionModel, data: DenoiserData, report: Report
) -> None:
    """Train the UNet on captions, as any Stable Diffusion; the weight average ends in the plan's checkpoint."""

    def loss_from(start: Start) -> Callable[[], Tensor]:
        batches, rows = data.started(start), BATCH // start.size

        def loss() -> Tensor:
            index, mode = batches.pick(rows), batches.modes(rows, _UNET_MODES)
            noised = batches.noised(index)
            with _fast_autocast():
                states = data.spoken(batches.captions(index, empty=mode == 2, described=mode == 0))
                predicted = unet(noised.sample, noised.timestep, states).sample
            return noised.loss(predicted)

        return loss

    train(crew, plan, unet, loss_from, report)


def train_adapter(
    crew: Crew, plan: Plan, adapted: AdaptedUnet, data: DenoiserData, embeds: Tensor, report: Report
) -> None:
    """Train projection and adapter attention beside a frozen UNet.

    `embeds` `[N, E]` are all drawings' image embeddings: a row's reference is another drawing of its person.
    A dropped reference is a zero embedding, as in diffusers' unconditional rows.
    """

    def loss_from(start: Start) -> Callable[[], Tensor]:
        batches, rows = data.started(start), BATCH // start.size

        def loss() -> Tensor:
            index, mode = batches.pick(rows), batches.modes(rows, _ADAPTER_MODES)
            noised = batches.noised(index)
            reference = embeds[batches.drawings.other_scene(index, batches.random)]
            reference = reference * torch.from_numpy(mode < 2)[:, None]
            described = (batches.random.random(rows) < _DESCRIBED_BESIDE_REFERENCE) | (mode == 2)
            ids = batches.captions(index, empty=(mode == 1) | (mode == 3), described=described)
            with _fast_autocast():
                predicted = adapted(noised.sample, noised.timestep, data.spoken(ids), reference)
            return noised.loss(predicted)

        return loss

    train(crew, plan, adapted, loss_from, report)


@contextmanager
def _fast_autocast() -> Iterator[None]:
    """Compute in bfloat16, with plain attention.

    The fused kernel's backward pass on a CPU is slow for short sequences: without it a step takes a fifth less.
    """
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        yield
