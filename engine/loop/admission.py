"""From a ``Submit`` to a job that can run, or the reason why it cannot."""

from __future__ import annotations

from math import isfinite

import numpy as np
import torch

from engine.backends.base import MAX_REFERENCES, Backend, LatentShape, PlacedReference
from engine.backends.slotted import RegionsUnsupportedError
from engine.models.layer_presets import layer_factors
from engine.models.regions import Box
from engine.protocol.framing import Tensor
from engine.protocol.messages import Failed, FailureReason, Submit
from engine.samplers import CoefficientBank, NoiseSource, SamplerError
from engine.scheduling import InvalidJob, Priority, WorkItem

from .inflight import ImageInFlight, JobInFlight

MAX_IMAGES = 8


class RefusedError(Exception):
    """A job that is not admitted; ``failed`` is the answer to the server."""

    def __init__(
        self,
        submit: Submit,
        reason: FailureReason,
        message: str,
        *,
        retry_after: float | None = None,
        least_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.failed = Failed(
            job_id=submit.job_id,
            reason=reason,
            message=message,
            phase="queued",
            retry_after=retry_after,
            least_seconds=least_seconds,
        )


class Admission:
    """Check and prepare jobs.

    The server has checked what the caller asked for; this protects the loop from the server.
    """

    def __init__(self, backend: Backend, bank: CoefficientBank) -> None:
        self._backend = backend
        self._bank = bank

    def prepare(self, submit: Submit, tokens: Tensor | None, arrived: float) -> JobInFlight:
        """Return the job, not yet known to the scheduler; its deadline counts from `arrived`.

        Raises ``RefusedError``.
        """
        try:
            return self._prepare(submit, tokens, arrived)
        except (SamplerError, InvalidJob, ValueError) as error:
            raise RefusedError(submit, FailureReason.INVALID, str(error)) from error

    def _prepare(self, submit: Submit, tokens: Tensor | None, arrived: float) -> JobInFlight:
        self._check(submit)
        table = self._bank.table(submit.sampler, submit.steps)
        guided = submit.guidance_scale > 1 and not self._backend.facts.guidance_embedded
        job = JobInFlight(
            submit=submit,
            references=self._references(submit, tokens),
            shape=self._shape(submit),
            table=table,
            draws=table.table.draws_noise.tolist(),
            guided=guided,
            submitted=arrived,
            deadline=None if submit.deadline is None else arrived + submit.deadline,
        )
        guided_steps = _guided_steps(submit) if guided else None
        for index, seed in enumerate(submit.seeds):
            item = WorkItem(
                id=f"{submit.job_id}/{index}",
                job_id=submit.job_id,
                steps=submit.steps,
                rows=2 if guided else 1,
                shape=job.shape,
                priority=Priority(submit.priority),
                deadline=job.deadline,
                deterministic=submit.deterministic,
                guided_steps=guided_steps,
            )
            noise = NoiseSource(seed, job.shape)
            job.images.append(ImageInFlight(job=job, index=index, item=item, noise=noise))
        return job

    def _check(self, submit: Submit) -> None:
        if not 1 <= len(submit.seeds) <= MAX_IMAGES:
            raise ValueError(f"{len(submit.seeds)} images, 1 to {MAX_IMAGES} are possible")
        for name in (
            "guidance_scale",
            "guidance_rescale",
            "guidance_start",
            "guidance_end",
            "ip_adapter_scale",
        ):
            if not isfinite(getattr(submit, name)):
                raise ValueError(f"{name} is not a finite number")
        if not all(isfinite(weight) for weight in submit.reference_weights):
            raise ValueError("reference_weights are not finite numbers")
        if not 0 <= submit.guidance_rescale <= 1:
            raise ValueError(f"guidance_rescale is {submit.guidance_rescale}, 0 to 1 is possible")

    def _shape(self, submit: Submit) -> LatentShape:
        facts = self._backend.facts
        for name, side in (("width", submit.width), ("height", submit.height)):
            if side % facts.size_multiple or not facts.min_size <= side <= facts.max_size:
                raise ValueError(
                    f"{name} is {side}; multiples of {facts.size_multiple} from {facts.min_size} "
                    f"to {facts.max_size} are possible"
                )
        scale = facts.latent_scale
        shape = (facts.latent_channels, submit.height // scale, submit.width // scale)
        if not self._backend.buckets(shape):
            raise ValueError(f"no engine was built for {submit.width}x{submit.height}")
        return shape

    def _references(self, submit: Submit, tokens: Tensor | None) -> tuple[PlacedReference, ...]:
        facts = self._backend.facts
        if tokens is not None and tokens.ndim != 3:
            raise ValueError(
                f"reference tokens must be [references, tokens, width], not {list(tokens.shape)}"
            )
        count = 0 if tokens is None else len(tokens)
        weights = submit.reference_weights or (1.0,) * count
        if len(weights) != count:
            raise ValueError(f"{len(weights)} weights for {count} references")
        regions = submit.reference_regions or (None,) * count
        if len(regions) != count:
            raise ValueError(f"{len(regions)} regions for {count} references")
        for region in regions:
            if region is not None and not _is_box(region):
                raise ValueError(f"reference region {region} is no part of the picture")
        if any(region is not None for region in regions) and not facts.regions:
            raise RegionsUnsupportedError
        if tokens is None:
            return ()
        if not 1 <= count <= MAX_REFERENCES:
            raise ValueError(f"{count} references, 1 to {MAX_REFERENCES} are possible")
        adapter = facts.adapter(submit.adapter)
        shape = (count, adapter.tokens, facts.token_width)
        if tokens.dtype != np.float32 or tokens.shape != shape:
            raise ValueError(
                f"reference tokens must be float32 {list(shape)}, not {tokens.dtype} {list(tokens.shape)}"
            )
        if not np.isfinite(tokens).all():
            raise RefusedError(submit, FailureReason.NUMERICAL, "the reference tokens are not finite")
        factors = layer_factors(submit.reference_layers, facts.family, facts.layer_names)
        # They go to the device with the job: most of those that are refused are refused for the time that they take.
        placed = torch.tensor(tokens)
        return tuple(
            PlacedReference(
                adapter=adapter.name,
                tokens=own,
                scales=tuple(submit.ip_adapter_scale * weight * factor for factor in factors),
                region=region,
            )
            for own, weight, region in zip(placed, weights, regions, strict=True)
        )


def _is_box(region: Box) -> bool:
    left, top, right, bottom = region
    return 0 <= left < right <= 1 and 0 <= top < bottom <= 1


def _guided_steps(submit: Submit) -> range | None:
    """Return the steps that are guided; None for all of them."""
    steps = submit.steps
    guided = [
        step
        for step in range(steps)
        if submit.guidance_start <= step / steps and (step + 1) / steps <= submit.guidance_end
    ]
    if len(guided) == steps:
        return None
    return range(guided[0], guided[-1] + 1) if guided else range(0)
