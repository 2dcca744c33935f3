"""The jobs in flight, and every way in which one ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import structlog

from engine.protocol.framing import Tensor
from engine.protocol.messages import Failed, FailureReason, Finished, ImageReady
from engine.scheduling import Infeasible, InvalidJob, QueueFull, Scheduler, WorkItem

from .admission import RefusedError
from .decoding import DecodeQueue
from .errors import Fault
from .inflight import ImageInFlight, JobInFlight
from .outbox import Emit
from .rows import RowSlots

log = structlog.get_logger()


class Jobs:
    """Know every job in flight; whatever ends one frees its rows, its slots and its place in the decode queue."""

    def __init__(
        self,
        scheduler: Scheduler,
        slots: RowSlots,
        decodes: DecodeQueue[ImageInFlight],
        emit: Emit,
        clock: Callable[[], float],
    ) -> None:
        self._scheduler = scheduler
        self._slots = slots
        self._decodes = decodes
        self._emit = emit
        self._clock = clock
        self._jobs: dict[str, JobInFlight] = {}
        self._images: dict[str, ImageInFlight] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[JobInFlight]:
        return iter(self._jobs.values())

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._jobs

    def images(self, items: Iterable[WorkItem]) -> list[ImageInFlight]:
        """Return the images that the scheduler's items stand for."""
        return [self._images[item.id] for item in items]

    def admit(self, job: JobInFlight) -> None:
        """Hand a job to the scheduler. Raises ``RefusedError`` when it does not take it."""
        submit = job.submit
        try:
            estimate = self._scheduler.submit([image.item for image in job.images])
        except InvalidJob as error:
            raise RefusedError(submit, FailureReason.INVALID, str(error)) from error
        except QueueFull as error:
            raise RefusedError(
                submit, FailureReason.QUEUE_FULL, str(error), retry_after=error.retry_after
            ) from error
        except Infeasible as error:
            hopeless = submit.deadline is None or error.least_seconds > submit.deadline
            later = None if hopeless else error.predicted_finish - error.deadline
            raise RefusedError(
                submit,
                FailureReason.INFEASIBLE,
                str(error),
                retry_after=later,
                least_seconds=error.least_seconds,
            ) from error
        self._jobs[job.id] = job
        self._images.update((image.item.id, image) for image in job.images)
        self._emit(job.queued(estimate))

    def cancel(self, job_id: str) -> None:
        """End a job at the server's word; one that is unknown has ended already."""
        job = self._jobs.get(job_id)
        if job is not None:
            self.fail(job, Fault(reason=FailureReason.CANCELLED, message="cancelled"))

    def expire(self, items: Iterable[WorkItem]) -> None:
        """End the jobs of images whose deadline has passed."""
        for item in items:
            job = self._jobs.get(item.job_id)
            if job is not None:
                self.fail(job, Fault(reason=FailureReason.DEADLINE, message="the deadline has passed"))

    def fail(self, job: JobInFlight, fault: Fault) -> None:
        """End a job that has not ended, without its pictures."""
        phase = job.phase
        self._remove(job)
        if fault.reason in (FailureReason.NUMERICAL, FailureReason.INTERNAL):
            log.error("job failed", job=job.id, reason=fault.reason, phase=phase, error=fault.message)
        self._emit(Failed(job_id=job.id, reason=fault.reason, message=fault.message, phase=phase))

    def denoised(self, items: Iterable[WorkItem]) -> None:
        """Pass images that took their last step on to the VAE; their slots are free."""
        for image in self.images(items):
            self._slots.release(image)
            assert image.state is not None, "an image that took its last step has a state"
            # The latents alone: the state is a view of its whole tick's, with the sampler's history beside them.
            image.state = image.state[:1].clone()
            image.job.denoised = self._clock()
            self._decodes.add(image)

    def deliver(self, image: ImageInFlight, pixels: Tensor) -> None:
        """Send a finished picture; after its job's last one, the job is done."""
        job = image.job
        self._emit(ImageReady(job_id=job.id, index=image.index, seed=image.seed), pixels)
        job.delivered += 1
        if job.delivered == len(job.images):
            self._remove(job)
            self._emit(_finished(job))

    def _remove(self, job: JobInFlight) -> None:
        del self._jobs[job.id]
        self._scheduler.cancel(job.id)
        self._decodes.drop(job)
        for image in job.images:
            del self._images[image.item.id]
            self._slots.release(image)


def _finished(job: JobInFlight) -> Finished:
    assert job.started is not None, "a job that is done has started"
    assert job.prompt is not None, "a job that has started has its prompt"
    return Finished(
        job_id=job.id,
        queue_seconds=job.started - job.submitted,
        encode_prompt_seconds=job.encode_seconds,
        denoise_seconds=job.denoised - job.denoising,
        decode_seconds=job.decode_seconds,
        mean_batch_rows=job.tick_rows / job.ticks,
        prompt_dropped=job.prompt.dropped,
        negative_prompt_dropped="" if job.negative is None else job.negative.dropped,
    )
