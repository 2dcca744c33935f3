"""What changes about a job between its admission and its last picture: the loop's only mutable records."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from engine.backends.base import Backend, EncodedPrompt, LatentShape, PlacedReference, RowConditioning
from engine.protocol.messages import Queued, Submit
from engine.samplers import BankedTable, NoiseSource
from engine.scheduling import Estimate, WorkItem


@dataclass(slots=True, kw_only=True, eq=False)
class ImageInFlight:
    """One picture of a job.

    ``state`` is ``[STATE_PLANES, C, h, w]`` once the image has started. ``slots`` are the backend slots of its
    rows: none, or its prompt's and, under guidance, its negative prompt's. ``drawn`` is noise that was taken
    from the source for a step that has not succeeded yet, so that repeating a step repeats its noise.
    """

    job: JobInFlight
    index: int
    item: WorkItem
    noise: NoiseSource
    state: torch.Tensor | None = None
    slots: tuple[int, ...] = ()
    step: int = 0
    drawn: torch.Tensor | None = None

    @property
    def guided(self) -> bool:
        """Whether its next step is guided, and so takes two rows."""
        return self.item.rows_at(self.step) == 2

    @property
    def seed(self) -> int:
        """The seed of this image's noise."""
        return self.job.submit.seeds[self.index]


@dataclass(slots=True, kw_only=True, eq=False)
class JobInFlight:
    """One ``Submit``, the images that it asks for, and the times that ``Finished`` reports.

    Moments are on the engine's clock. The tokens of ``references`` are f32 on the CPU.
    """

    submit: Submit
    references: tuple[PlacedReference, ...]
    shape: LatentShape
    table: BankedTable
    draws: list[bool]
    """For each step, whether it takes fresh noise."""
    guided: bool
    submitted: float
    deadline: float | None
    images: list[ImageInFlight] = field(default_factory=list)
    prompt: EncodedPrompt | None = None
    negative: EncodedPrompt | None = None
    rows: list[RowConditioning] | None = None
    """What each row of an image is conditioned on, once known: the same objects for all of its images."""

    told: Estimate | None = None
    """Where it stands, as the server was told last."""
    started: float | None = None
    denoising: float = 0.0
    denoised: float = 0.0
    encode_seconds: float = 0.0
    decode_seconds: float = 0.0
    ticks: int = 0
    tick_rows: int = 0
    step: int = 0
    delivered: int = 0

    @property
    def id(self) -> str:
        """The server's name for it."""
        return self.submit.job_id

    @property
    def phase(self) -> str:
        """Where it is: ``queued``, ``denoising`` or ``decoding``."""
        if self.started is None:
            return "queued"
        steps = self.submit.steps
        return "decoding" if all(image.step == steps for image in self.images) else "denoising"

    @property
    def texts(self) -> tuple[str, ...]:
        """What the text encoder must read for its rows."""
        submit = self.submit
        return (submit.prompt, submit.negative_prompt) if self.guided else (submit.prompt,)

    def queued(self, estimate: Estimate) -> Queued:
        """Return the message that says where it stands, and remember what it says."""
        self.told = estimate
        return Queued(
            job_id=self.id,
            position=estimate.position,
            starts_in=estimate.starts_in,
            finishes_in=estimate.finishes_in,
        )

    def conditioning(self, backend: Backend) -> list[RowConditioning]:
        """Return what each row of one of its images is conditioned on; the same objects for all of its images.

        The unconditional row of an image with references carries as many unconditional ones, each at the same scales,
        as in diffusers ``StableDiffusionPipeline`` (``prepare_ip_adapter_image_embeds``). All tokens are on the
        backend's device.
        """
        if self.rows is not None:
            return self.rows
        assert self.prompt is not None, "rows are placed after the prompts are encoded"
        submit = self.submit
        references = tuple(
            replace(reference, tokens=reference.tokens.to(backend.device)) for reference in self.references
        )
        row = RowConditioning(
            prompt=self.prompt,
            references=references,
            size=(submit.height, submit.width),
            guidance_scale=submit.guidance_scale,
        )
        rows = [row]
        if self.guided:
            assert self.negative is not None, "guidance needs the negative prompt"
            absent = tuple(
                replace(reference, tokens=backend.unconditional_tokens[reference.adapter])
                for reference in references
            )
            zeros = backend.facts.zero_empty_negative and not submit.negative_prompt
            negative = self.negative.zeroed() if zeros else self.negative
            rows.append(replace(row, prompt=negative, references=absent))
        self.rows = rows
        return rows
