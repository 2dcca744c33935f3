"""Running ticks: schedule, prepare, denoise, settle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import structlog

from engine.protocol.messages import FailureReason, PreviewReady
from engine.scheduling import Cadence, Scheduler, Shape, Tick

from .denoiser import Denoiser, Stepped
from .errors import BackendBrokenError, Fault
from .inflight import ImageInFlight, JobInFlight
from .jobs import Jobs
from .newcomers import Newcomers
from .outbox import Emit
from .preview import LatentPreview
from .reporting import Reporter

log = structlog.get_logger()


class Ticks:
    """Run the scheduler's ticks, and keep what goes wrong in one to the images that did it.

    A step runs within ``meanwhile()``: others may admit jobs then, and end none.
    """

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        jobs: Jobs,
        newcomers: Newcomers,
        denoiser: Denoiser,
        preview: LatentPreview,
        reporter: Reporter,
        emit: Emit,
        clock: Callable[[], float],
        works: Callable[[], bool],
        meanwhile: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._scheduler = scheduler
        self._jobs = jobs
        self._meanwhile = meanwhile
        self._newcomers = newcomers
        self._denoiser = denoiser
        self._preview = preview
        self._reporter = reporter
        self._emit = emit
        self._clock = clock
        self._works = works
        self.cadence = Cadence()
        self._suspects: set[tuple[Shape, int]] = set()
        """Shape and bucket of ticks that raised as a whole, and of which every image ran alone."""

    def next(self) -> Tick | None:
        """Return the next tick, every image of which is ready to run; None when no image is in flight.

        Jobs whose deadline has passed, and those that cannot be made ready, end here.
        """
        while True:
            tick = self._scheduler.next_tick()
            self._jobs.expire(self._scheduler.take_expired())
            if tick is None:
                self._denoiser.forget()
                self.cadence.rest()
                return None
            faults = self._newcomers.prepare(self._jobs.images(tick.items))
            if not faults:
                return tick
            for job, fault in faults.items():
                self._jobs.fail(job, fault)

    def run(self, tick: Tick) -> float:
        """Run a tick and return the seconds that it took. Raises ``BackendBrokenError``."""
        images = self._jobs.images(tick.items)
        previewed = [index for index, image in enumerate(images) if _wants_preview(image)]
        self._scheduler.begin(tick)
        began = self._clock()
        try:
            with self._meanwhile():
                stepped = self._denoiser.step(images, tick.bucket, previewed)
        except Exception as error:
            self._single_out(tick, error)
            self.cadence.rest()
            return self._clock() - began
        ended = self._clock()
        seconds = ended - began
        self._settle(tick, images, stepped, self.cadence.of(began, ended))
        self._send_previews([images[index] for index in previewed], stepped)
        return seconds

    def _settle(self, tick: Tick, images: Sequence[ImageInFlight], stepped: Stepped, seconds: float) -> None:
        """Fail the images that the step spoilt, advance the others, pass finished ones on."""
        if not any(stepped.finite) and not self._works():
            raise BackendBrokenError("the backend predicts values that are not finite")
        jobs = dict.fromkeys(image.job for image in images)
        rows = tick.rows
        for job in jobs:
            job.ticks += 1
            job.tick_rows += rows
        for image, finite in zip(images, stepped.finite, strict=True):
            if not finite and image.job.id in self._jobs:
                fault = Fault(reason=FailureReason.NUMERICAL, message="the latents are not finite")
                self._jobs.fail(image.job, fault)
        finished = self._scheduler.complete(tick, seconds)
        self._reporter.progress(job for job in jobs if job.id in self._jobs)
        self._jobs.denoised(finished)

    def _single_out(self, tick: Tick, error: Exception) -> None:
        """Repeat a tick that raised, image by image, and fail those that raise by themselves.

        When none does, the fault is the batch's. Once may be chance; at the second time its bucket is given up.
        """
        log.warning("tick failed, its images run alone", error=repr(error), images=len(tick.items))
        faults: list[tuple[JobInFlight, Fault]] = []
        alone = self._scheduler.split(tick)
        for single in alone:
            if single.items[0].job_id not in self._jobs:
                continue
            images = self._jobs.images(single.items)
            began = self._clock()
            try:
                stepped = self._denoiser.step(images, single.bucket)
            except Exception as own:
                faults.append((images[0].job, Fault.of(own)))
            else:
                self._settle(single, images, stepped, self._clock() - began)
        if len(faults) == len(alone) and not self._works():
            raise BackendBrokenError(f"{type(error).__name__}: {error}") from error
        for job, fault in faults:
            if job.id in self._jobs:
                self._jobs.fail(job, fault)
        if not faults and len(alone) > 1:
            self._suspect(tick, error)

    def _suspect(self, tick: Tick, error: Exception) -> None:
        suspect = (tick.shape, tick.bucket)
        if suspect in self._suspects:
            self._scheduler.distrust(tick)
            log.error(
                "bucket given up, it raises for sound images",
                shape=tick.shape,
                bucket=tick.bucket,
                error=repr(error),
            )
        self._suspects.add(suspect)

    def _send_previews(self, images: Sequence[ImageInFlight], stepped: Stepped) -> None:
        if stepped.estimates is None:
            return
        pictures = self._preview.render(stepped.estimates).cpu().numpy()
        for image, picture in zip(images, pictures, strict=True):
            if image.job.id in self._jobs:
                message = PreviewReady(job_id=image.job.id, index=image.index, step=image.step)
                self._emit(message, picture)


def _wants_preview(image: ImageInFlight) -> bool:
    interval = image.job.submit.preview_interval
    done = image.step + 1
    return interval > 0 and done % interval == 0 and done < image.job.submit.steps
