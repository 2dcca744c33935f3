"""What an image needs before its first tick: its prompts, its slots, its first latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from engine.backends.base import Backend, EncodedPrompt
from engine.protocol.messages import Started
from engine.samplers import initial_state

from .errors import Fault
from .guard import singled_out
from .inflight import ImageInFlight, JobInFlight
from .outbox import Emit
from .prompts import PromptDesk, PromptKey
from .rows import RowSlots

Faults = dict[JobInFlight, Fault]


class Newcomers:
    """Make the images of a tick ready to run."""

    def __init__(
        self,
        backend: Backend,
        slots: RowSlots,
        prompts: PromptDesk,
        emit: Emit,
        clock: Callable[[], float],
        works: Callable[[], bool],
    ) -> None:
        self._backend = backend
        self._slots = slots
        self._prompts = prompts
        self._emit = emit
        self._clock = clock
        self._works = works

    def prepare(self, images: Sequence[ImageInFlight]) -> Faults:
        """Prepare the images of a tick that hold no slots; return the jobs whose images cannot run, and why.

        Raises ``BackendBrokenError``.
        """
        newcomers = [image for image in images if not image.slots]
        if not newcomers:
            return {}
        faults = self._encode_prompts(list(dict.fromkeys(image.job for image in newcomers)))
        for image in newcomers:
            if image.job not in faults:
                (seated,) = singled_out([image], partial(self._seat, tick=images), self._works)
                if isinstance(seated, Fault):
                    faults[image.job] = seated
        return faults

    def _encode_prompts(self, jobs: Sequence[JobInFlight]) -> Faults:
        """Encode what the jobs' rows need, in one batch for all of them."""
        began = self._clock()
        wanting = [job for job in jobs if job.prompt is None]
        for job in wanting:
            job.started = began
            self._emit(Started(job_id=job.id, queue_seconds=began - job.submitted))
        prompts = self._prompts.encode(key for job in wanting for key in _keys(job))
        now = self._clock()
        faults: Faults = {}
        for job in wanting:
            job.encode_seconds = now - began
            job.denoising = now
            encoded: list[EncodedPrompt] = []
            for key in _keys(job):
                prompt = prompts[key]
                if isinstance(prompt, Fault):
                    faults[job] = prompt
                else:
                    encoded.append(prompt)
            if job not in faults:
                job.prompt, job.negative = encoded[0], encoded[1] if job.guided else None
        return faults

    def _seat(
        self, images: Sequence[ImageInFlight], tick: Sequence[ImageInFlight]
    ) -> Sequence[ImageInFlight]:
        for image in images:
            self._slots.seat(image, tick)
            if image.state is None:
                latents = image.noise.initial_latents(image.job.table.table.init_noise_sigma)
                image.state = initial_state(latents.to(self._backend.device).unsqueeze(0))[0]
        return images


def _keys(job: JobInFlight) -> list[PromptKey]:
    return [PromptKey(text, job.submit.deterministic) for text in job.texts]
