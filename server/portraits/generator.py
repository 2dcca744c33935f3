"""How a portrait is made: reference, engine, pictures; one stream of news that both RPCs are built on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

import numpy as np

from engine.protocol import messages
from engine.protocol.framing import Frame
from server.deadlines import is_late
from server.engine_link.engines import Engines
from server.engine_link.work import Job
from server.imaging.formats import PictureFormat
from server.imaging.parameters import EmbeddedParameters
from server.imaging.pool import ImagingPool
from server.portraits.admission import Admission
from server.portraits.caller import Caller, NewsWanted
from server.portraits.finishing import Encoded, Finishing
from server.portraits.news import (
    Completed,
    FinishedImage,
    News,
    Progress,
    Queued,
    ReferenceUse,
    Timings,
)
from server.portraits.portrait import Portrait
from server.portraits.prompts import seen_part
from server.portraits.resolver import ReferenceResolver
from server.portraits.warnings import portrait_warnings
from server.references.library import ReferenceLibrary
from server.references.record import ResolvedReference
from server.tracing.trace import current_trace


class GenerationObserver(Protocol):
    """Is told of pictures; ``server.metrics.ServerMetrics`` is one."""

    def stage_seconds(self, stage: str, seconds: float) -> None: ...  # noqa: D102

    def image_made(self, format: PictureFormat) -> None: ...  # noqa: D102

    def cancelled(self, phase: str) -> None: ...  # noqa: D102


class Generator:
    """Makes portraits, any number at once. ``is_ending`` tells whether it is the server that cancels."""

    def __init__(
        self,
        *,
        engines: Engines,
        references: ReferenceLibrary,
        pool: ImagingPool,
        admission: Admission,
        observer: GenerationObserver,
        is_ending: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engines = engines
        self._resolver = ReferenceResolver(references)
        self._pool = pool
        self._admission = admission
        self._observer = observer
        self._is_ending = is_ending
        self._clock = clock

    async def generate(
        self, portrait: Portrait, caller: Caller, wanted: NewsWanted
    ) -> AsyncGenerator[News, None]:
        """Make a portrait; the last news is ``Completed``. Closing the iterator cancels it. Raises ``LimnerError``."""
        job: Job | None = None
        done = False
        permit = self._admission.enter()
        current_trace().past("limner.admit", began=caller.arrived, ended=self._clock())
        try:
            submit = _submit(portrait, caller, wanted)
            engine = self._engines.find(portrait.model)
            engine.check(submit, deadline=caller.deadline)
            references = await self._resolver.resolve(portrait, caller.tenant)
            inbox: asyncio.Queue[object] = asyncio.Queue()
            finishing = Finishing(self._pool, inbox, self._clock, portrait)
            tokens = np.stack([reference.tokens for reference in references]) if references else None
            with engine.run(submit, tokens, deadline=caller.deadline, inbox=inbox) as job:
                try:
                    follow = self._follow(portrait, caller, references, inbox, finishing)
                    async with aclosing(follow) as all_news:
                        async for news in all_news:
                            done = isinstance(news, Completed)
                            yield news
                finally:
                    finishing.close()
        except (asyncio.CancelledError, GeneratorExit):
            late = is_late(arrived=caller.arrived, deadline=caller.deadline, now=self._clock())
            if not (done or late or self._is_ending()):
                self._observer.cancelled(job.phase if job is not None else "admitted")
            raise
        finally:
            permit.leave(done=done)

    async def _follow(
        self,
        portrait: Portrait,
        caller: Caller,
        references: Sequence[ResolvedReference],
        inbox: asyncio.Queue[object],
        finishing: Finishing,
    ) -> AsyncGenerator[News, None]:
        finished: messages.Finished | None = None
        missing = set(range(portrait.image_count))
        while finished is None or missing:
            match await inbox.get():
                case Exception() as error:
                    raise error
                case Encoded(news=news):
                    if isinstance(news, FinishedImage):
                        missing.discard(news.index)
                        self._observer.image_made(news.format)
                        yield news
                    elif news.index in missing:
                        yield news
                case Frame(message=messages.Queued() as queued):
                    yield Queued(
                        position=queued.position, starts_in=queued.starts_in, finishes_in=queued.finishes_in
                    )
                case Frame(message=messages.Step() as step):
                    yield Progress(step=step.step, steps=step.steps)
                case Frame(message=messages.PreviewReady() as ready, tensor=pixels) if pixels is not None:
                    finishing.preview(ready.index, ready.step, pixels)
                case Frame(message=messages.ImageReady() as image, tensor=pixels) if pixels is not None:
                    parameters = self._embedded(portrait, caller, references, image)
                    finishing.image(pixels, parameters)
                case Frame(message=messages.Finished() as end):
                    finished = end
                case _:
                    pass
        self._observer.stage_seconds("encode_output", finishing.seconds)
        yield _completed(portrait, references, finished, finishing.seconds, self._clock() - caller.arrived)

    def _embedded(
        self,
        portrait: Portrait,
        caller: Caller,
        references: Sequence[ResolvedReference],
        image: messages.ImageReady,
    ) -> EmbeddedParameters:
        return EmbeddedParameters(
            task_id=caller.task_id,
            index=image.index,
            model=portrait.model,
            weights_hash=self._engines.find(portrait.model).ready().model.weights_hash,
            prompt=portrait.prompt,
            negative_prompt=portrait.negative_prompt,
            sampler=portrait.sampler.value,
            steps=portrait.steps,
            guidance_scale=portrait.guidance_scale,
            guidance_rescale=portrait.guidance_rescale,
            guidance_start=portrait.guidance_start,
            guidance_end=portrait.guidance_end,
            ip_adapter_scale=portrait.ip_adapter_scale,
            seed=image.seed,
            width=portrait.width,
            height=portrait.height,
            reference=references[0].digest if references else "",
            references=tuple(
                (used.digest, asked.weight)
                for used, asked in zip(references, portrait.references, strict=True)
            ),
            regions=portrait.regions,
            adapter=portrait.adapter,
            reference_layers=portrait.reference_layers.value if references else "",
            deterministic=portrait.deterministic,
        )


def _submit(portrait: Portrait, caller: Caller, wanted: NewsWanted) -> messages.Submit:
    return messages.Submit(
        job_id=caller.task_id,
        prompt=portrait.prompt,
        negative_prompt=portrait.negative_prompt,
        sampler=portrait.sampler.value,
        steps=portrait.steps,
        guidance_scale=portrait.guidance_scale,
        guidance_rescale=portrait.guidance_rescale,
        guidance_start=portrait.guidance_start,
        guidance_end=portrait.guidance_end,
        ip_adapter_scale=portrait.ip_adapter_scale,
        width=portrait.width,
        height=portrait.height,
        seeds=portrait.seeds,
        adapter=portrait.adapter,
        reference_weights=tuple(reference.weight for reference in portrait.references),
        reference_regions=portrait.regions,
        reference_layers=portrait.reference_layers.value,
        priority=portrait.priority.value,
        deterministic=portrait.deterministic,
        progress=wanted.progress,
        preview_interval=wanted.preview_interval,
    )


def _completed(
    portrait: Portrait,
    references: Sequence[ResolvedReference],
    finished: messages.Finished,
    encode_output: float,
    total: float,
) -> Completed:
    pairs = list(zip(portrait.references, references, strict=True))
    return Completed(
        # An answer that is kept for a retry must not hold the references' bytes.
        portrait=replace(
            portrait,
            references=tuple(replace(asked, image=b"", digest=used.digest) for asked, used in pairs),
        ),
        prompt_seen=seen_part(portrait.prompt, finished.prompt_dropped),
        references=tuple(
            ReferenceUse(digest=used.digest, outcome=used.outcome, weight=asked.weight)
            for asked, used in pairs
        ),
        timings=Timings(
            # Several are prepared at the same time.
            decode_input=max((used.decode_seconds for used in references), default=0.0),
            reference=max((used.reference_seconds for used in references), default=0.0),
            queue=finished.queue_seconds,
            encode_prompt=finished.encode_prompt_seconds,
            denoise=finished.denoise_seconds,
            decode_latents=finished.decode_seconds,
            encode_output=encode_output,
            total=total,
            mean_batch_rows=finished.mean_batch_rows,
        ),
        warnings=tuple(portrait_warnings(portrait, finished, [used.record for used in references])),
    )
