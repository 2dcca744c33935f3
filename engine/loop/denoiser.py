"""One tick's arithmetic: gather, predict, guide, advance, check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine.backends.base import Backend
from engine.samplers import CoefficientBank, advance, estimate_x0, guide, model_input

from .guard import all_finite
from .inflight import ImageInFlight


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """What a step gave. ``finite[i]`` says whether image i may go on.

    ``estimates`` is ``[P, C, h, w]``: the latents that each previewed image expects in the end.
    """

    finite: list[bool]
    estimates: torch.Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """What the choice of images fixes about a tick; it is reused until an image joins or leaves, or its guidance
    begins or ends.

    Rows are ordered: every image's prompt, then the negative prompts of the guided ones. ``guided_index`` says which
    those are, on the device; it is None when they are all or none. ``rescale`` is None when no image asks for it.
    """

    images: tuple[ImageInFlight, ...]
    seats: tuple[tuple[int, ...], ...]
    """The slots of each image."""
    guided: tuple[bool, ...]
    """Whether each image's step is guided."""
    slots: tuple[int, ...]
    """The slot of each row."""
    image_by_row: tuple[int, ...]
    guided_index: torch.Tensor | None
    scale: torch.Tensor
    rescale: torch.Tensor | None
    planes: int
    """How many planes of their states the images' samplers use, at most."""

    @classmethod
    def of(cls, images: Sequence[ImageInFlight], device: torch.device) -> Composition:
        """Lay out the rows of these images, which hold their slots."""
        count = len(images)
        guided = [index for index, image in enumerate(images) if image.guided]
        submits = [image.job.submit for image in images]
        rescale = [submit.guidance_rescale for submit in submits]
        return cls(
            images=tuple(images),
            seats=tuple(image.slots for image in images),
            guided=tuple(image.guided for image in images),
            slots=(*(image.slots[0] for image in images), *(images[index].slots[1] for index in guided)),
            image_by_row=(*range(count), *guided),
            guided_index=torch.tensor(guided, device=device) if 0 < len(guided) < count else None,
            scale=torch.tensor([submit.guidance_scale for submit in submits], device=device),
            rescale=torch.tensor(rescale, device=device) if any(rescale) else None,
            planes=max(image.job.table.table.planes for image in images),
        )

    def holds(self, images: Sequence[ImageInFlight]) -> bool:
        """Say whether these are the images, in this order, in the same slots and as guided as then."""
        return (
            len(images) == len(self.images)
            and all(mine is other for mine, other in zip(self.images, images, strict=True))
            and self.seats == tuple(image.slots for image in images)
            and self.guided == tuple(image.guided for image in images)
        )

    def rows(self, values: torch.Tensor) -> torch.Tensor:
        """Repeat ``[B, ...]`` values of the images for their rows, ``[R, ...]``."""
        if self.guided_index is not None:
            return torch.cat((values, values[self.guided_index]))
        return torch.cat((values, values)) if all(self.guided) else values


class Denoiser:
    """Advance images by a step each, whatever their sampler, step, guidance or reference.

    A step that raises changes nothing, so it may be repeated in other company.
    """

    def __init__(self, backend: Backend, bank: CoefficientBank) -> None:
        self._backend = backend
        self._bank = bank
        self._composition: Composition | None = None
        self._state: torch.Tensor | None = None

    def step(self, images: Sequence[ImageInFlight], bucket: int, previewed: Sequence[int] = ()) -> Stepped:
        """Run one tick over images that have a state and hold their slots.

        ``previewed`` are the positions of the images whose expected picture is wanted. Waits for the device
        once, at the end.
        """
        composition, state = self._gather(images)
        coefficients = self._bank.gather(self._table_rows(images))
        prediction = self._backend.predict_noise(
            composition.slots,
            composition.rows(model_input(state, coefficients.input_scale)),
            composition.rows(coefficients.timestep),
            bucket,
            composition.image_by_row,
        )
        guided = guide(prediction, composition.scale, composition.rescale, composition.guided_index)
        advanced = advance(state, guided, self._noise(images), coefficients.matrix, composition.planes)
        estimates = None
        if previewed:
            picked = torch.tensor(previewed, device=state.device)
            estimates = estimate_x0(state[picked], guided[picked], coefficients.x0[picked])
        finite: list[bool] = all_finite(advanced[:, 0]).tolist()
        self._commit(composition, advanced)
        return Stepped(finite=finite, estimates=estimates)

    def forget(self) -> None:
        """Let go of the images of the latest tick."""
        self._composition = self._state = None

    def _gather(self, images: Sequence[ImageInFlight]) -> tuple[Composition, torch.Tensor]:
        known = self._composition
        if known is not None and self._state is not None and known.holds(images):
            return known, self._state
        states = [image.state for image in images if image.state is not None]
        assert len(states) == len(images), "an image in a tick has no state"
        self._part(images)
        return Composition.of(images, self._backend.device), torch.stack(states)

    def _part(self, images: Sequence[ImageInFlight]) -> None:
        """Give those that leave a state of their own: a view would keep the whole tick's in memory."""
        leaving = set(() if self._composition is None else self._composition.images) - set(images)
        for image in leaving:
            image.state = None if image.state is None else image.state.clone()

    def _table_rows(self, images: Sequence[ImageInFlight]) -> torch.Tensor:
        rows = [image.job.table.first_row + image.step for image in images]
        return torch.tensor(rows, device=self._backend.device)

    def _noise(self, images: Sequence[ImageInFlight]) -> torch.Tensor | None:
        drawing = [(index, image) for index, image in enumerate(images) if image.job.draws[image.step]]
        if not drawing:
            return None
        noise = torch.zeros(len(images), *images[0].job.shape)
        for index, image in drawing:
            if image.drawn is None:
                image.drawn = image.noise.draw()
            noise[index] = image.drawn
        return noise.to(self._backend.device)

    def _commit(self, composition: Composition, advanced: torch.Tensor) -> None:
        self._composition, self._state = composition, advanced
        for image, state in zip(composition.images, advanced.unbind(0), strict=True):
            image.state = state
            image.drawn = None
            image.step += 1
