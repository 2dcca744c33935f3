"""Train the denoiser: first the UNet with text alone, then the IP-Adapter with everything else frozen."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModel

from engine.embedded.recipe.adapter import AdaptedUnet
from engine.embedded.recipe.batches import Batches
from engine.embedded.recipe.progress import Progress
from engine.embedded.recipe.samples import DESCRIBED, SCENES, draw_samples
from engine.embedded.recipe.towers import tokenise
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoiserData:
    """Hold what both stages train on; `text` and `vae` are frozen."""

    batches: Batches
    text: CLIPTextModel
    vae: AutoencoderKL
    directory: Path
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

    def guided(self, prompts: Sequence[str]) -> Tensor:
        """Return hidden states `[2B, 77, D]`: of as many empty prompts, then of these."""
        return self.spoken(tokenise(self.batches.tokenizer, [*[""] * len(prompts), *prompts]))

    def plan(self, name: str, minutes: float, *, matrix_rate: float, average: float) -> Plan:
        """Return how a stage of the denoiser trains."""
        return Plan(
            name=name,
            directory=self.directory,
            minutes=minutes,
            matrix_rate=matrix_rate,
            vector_rate=2e-3,
            average=average,
            checkpoint_minutes=8.0,
            record_every=10,
        )


def train_unet(crew: Crew, unet: UNet2DConditionModel, data: DenoiserData, *, minutes: float) -> None:
    """Train the UNet on captions, as any Stable Diffusion; the weight average ends in `unet.pt`.

    Each checkpoint draws `unet_sheet.png`.
    """

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

    def report(weights: dict[str, Tensor], _: Progress) -> None:
        shown = copy.deepcopy(unet).requires_grad_(False)
        shown.load_state_dict(weights)
        states = data.guided([*DESCRIBED, *SCENES])

        def velocity(sample: Tensor, timestep: Tensor) -> Tensor:
            predicted: Tensor = shown(sample, timestep, states).sample
            return predicted

        draw_samples(velocity, data.vae, data.directory / "unet_sheet.png", count=len(states) // 2)

    train(crew, data.plan("unet", minutes, matrix_rate=0.02, average=0.999), unet, loss_from, report)


def train_adapter(
    crew: Crew, adapted: AdaptedUnet, data: DenoiserData, embeds: Tensor, *, minutes: float
) -> None:
    """Train projection and adapter attention beside a frozen UNet; the weight average ends in `adapter.pt`.

    `embeds` `[N, E]` are all drawings' image embeddings: a row's reference is another drawing of its person.
    A dropped reference is a zero embedding, as in diffusers' unconditional rows. Each checkpoint draws
    `adapter_sheet.png`: two people of the training set, a row each.
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

    def report(weights: dict[str, Tensor], _: Progress) -> None:
        shown = copy.deepcopy(adapted).requires_grad_(False)
        shown.load_state_dict(weights, strict=False)
        people = embeds[[0, data.batches.drawings.scenes]].repeat_interleave(len(SCENES), dim=0)
        references = torch.cat([torch.zeros_like(people), people])
        states = data.guided([*SCENES, *SCENES])

        def velocity(sample: Tensor, timestep: Tensor) -> Tensor:
            predicted: Tensor = shown(sample, timestep, states, references)
            return predicted

        draw_samples(velocity, data.vae, data.directory / "adapter_sheet.png", count=len(people))

    train(crew, data.plan("adapter", minutes, matrix_rate=0.01, average=0.998), adapted, loss_from, report)


@contextmanager
def _fast_autocast() -> Iterator[None]:
    """Compute in bfloat16, with plain attention.

    The fused kernel's backward pass on a CPU is slow for short sequences: without it a step takes a fifth less.
    """
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        yield
