"""Train the denoiser: first the UNet with text alone, then the IP-Adapter with everything else frozen."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel

from engine.embedded.recipe.adapter import AdaptedUnet
from engine.embedded.recipe.batches import Batches, Drawn, Latents
from engine.embedded.recipe.progress import Progress
from engine.embedded.recipe.samples import DESCRIBED, SCENES, draw_samples
from engine.embedded.recipe.supply import supply
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
    """Hold what both stages train on; `text` and `vae` are frozen. Latents and `text` are on the crew's device."""

    batches: Batches
    latents: Latents
    text: CLIPTextModel
    vae: AutoencoderKL
    directory: Path
    seed: int = 3

    def spoken(self, ids: Tensor) -> Tensor:
        """Return the captions' hidden states `[B, 77, D]`."""
        with torch.no_grad():
            states: Tensor = self.text(ids.to(self.text.device)).last_hidden_state
        return states

    def guided(self, prompts: Sequence[str]) -> Tensor:
        """Return hidden states `[2B, 77, D]` on the CPU: of as many empty prompts, then of these."""
        return self.spoken(tokenise(self.batches.tokenizer, [*[""] * len(prompts), *prompts])).cpu()

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
    rows = crew.rows(BATCH)

    def draw_from(start: Start) -> Callable[[], Drawn]:
        batches = data.batches.started(start, data.seed)

        def draw() -> Drawn:
            mode = batches.modes(rows, _UNET_MODES)
            return batches.drawn(batches.pick(rows), empty=mode == 2, described=mode == 0)

        return draw

    def loss_from(start: Start) -> Callable[[], Tensor]:
        draw = supply(crew, start, draw_from)

        def loss() -> Tensor:
            drawn = draw()
            noised = data.latents.noised(drawn)
            with crew.arithmetic():
                predicted = unet(noised.sample, noised.timestep, data.spoken(drawn.ids)).sample
            return noised.loss(predicted)

        return loss

    def report(weights: dict[str, Tensor], _: Progress) -> None:
        shown = copy.deepcopy(unet).cpu().requires_grad_(False)
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
    rows, embeds = crew.rows(BATCH), embeds.to(crew.device)

    def draw_from(start: Start) -> Callable[[], Drawn]:
        batches = data.batches.started(start, data.seed)

        def draw() -> Drawn:
            mode = batches.modes(rows, _ADAPTER_MODES)
            described = (batches.random.random(rows) < _DESCRIBED_BESIDE_REFERENCE) | (mode == 2)
            silent = (mode == 1) | (mode == 3)
            return batches.drawn(batches.pick(rows), empty=silent, described=described, referenced=mode < 2)

        return draw

    def loss_from(start: Start) -> Callable[[], Tensor]:
        draw = supply(crew, start, draw_from)

        def loss() -> Tensor:
            drawn = draw()
            noised = data.latents.noised(drawn)
            number = drawn.reference.to(crew.device)
            reference = embeds[number.clamp(min=0)] * (number >= 0)[:, None]
            with crew.arithmetic():
                predicted = adapted(noised.sample, noised.timestep, data.spoken(drawn.ids), reference)
            return noised.loss(predicted)

        return loss

    def report(weights: dict[str, Tensor], _: Progress) -> None:
        shown = copy.deepcopy(adapted).cpu().requires_grad_(False)
        shown.load_state_dict(weights, strict=False)
        people = embeds[[0, data.batches.drawings.scenes]].cpu().repeat_interleave(len(SCENES), dim=0)
        references = torch.cat([torch.zeros_like(people), people])
        states = data.guided([*SCENES, *SCENES])

        def velocity(sample: Tensor, timestep: Tensor) -> Tensor:
            predicted: Tensor = shown(sample, timestep, states, references)
            return predicted

        draw_samples(velocity, data.vae, data.directory / "adapter_sheet.png", count=len(people))

    train(crew, data.plan("adapter", minutes, matrix_rate=0.01, average=0.998), adapted, loss_from, report)
