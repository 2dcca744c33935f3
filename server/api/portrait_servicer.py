"""PortraitService: both RPCs are one stream of news, told at once or as it comes."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import grpc
from limner.v1 import portrait_service_pb2, portrait_service_pb2_grpc

from server.api.access_log import AccessLog
from server.api.calls import current_call
from server.api.conversion.portraits import generate_response, generate_stream_response
from server.api.conversion.requests import portrait_fingerprint, portrait_request
from server.api.validation import check_portrait
from server.config.options import LimitOptions
from server.engine_link.engines import Engines
from server.portraits.caller import Caller, NewsWanted
from server.portraits.generator import Generator
from server.portraits.idempotency import IdempotentGenerations, Key, is_its_first_callers_own
from server.portraits.news import Completed, FinishedImage, News
from server.portraits.portrait import SEED_COUNT, Portrait

HASHED_AT_ONCE_BYTES = 1 << 18
"""Less than a millisecond of SHA-256."""


class PortraitServicer(portrait_service_pb2_grpc.PortraitServiceServicer):
    """Answers ``Generate`` and ``GenerateStream``."""

    def __init__(
        self,
        *,
        generator: Generator,
        engines: Engines,
        limits: LimitOptions,
        idempotency: IdempotentGenerations,
        access_log: AccessLog,
    ) -> None:
        self._generator = generator
        self._engines = engines
        self._limits = limits
        self._idempotency = idempotency
        self._access_log = access_log

    async def Generate(  # noqa: N802 - the name in the proto
        self, request: portrait_service_pb2.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> portrait_service_pb2.GenerateResponse:
        """Return every image of the portrait."""
        images: list[FinishedImage] = []
        async with aclosing(self._news(request, NewsWanted())) as all_news:
            async for task_id, news in all_news:
                if isinstance(news, FinishedImage):
                    images.append(news)
                elif isinstance(news, Completed):
                    return generate_response(task_id, images, news)
        raise AssertionError("the news of a portrait end with Completed")

    async def GenerateStream(  # noqa: N802 - the name in the proto
        self, request: portrait_service_pb2.GenerateStreamRequest, context: grpc.aio.ServicerContext
    ) -> None:
        """Tell the news as they come; written, not yielded, so that a cancel reaches this very coroutine."""
        wanted = NewsWanted(progress=True, preview_interval=max(request.preview_interval, 0))
        async with aclosing(self._news(request, wanted)) as all_news:
            async for task_id, news in all_news:
                await context.write(generate_stream_response(task_id, news))

    async def _news(self, request: Any, wanted: NewsWanted) -> AsyncGenerator[tuple[str, News], None]:
        call = current_call()
        tenant = call.tenant
        portrait = check_portrait(
            portrait_request(request),
            self._limits,
            self._engines.find(request.portrait.model).ready(),
            _draw_seed,
            idempotency_key=request.idempotency_key,
            preview_interval=getattr(request, "preview_interval", 0),
        )
        caller = Caller(tenant=tenant, task_id=uuid.uuid4().hex, arrived=call.arrived, deadline=call.deadline)
        if request.idempotency_key:
            key = Key(tenant, request.idempotency_key)
            all_news = self._shared(key, await _fingerprint(request), portrait, caller, wanted)
        else:
            self._access_log.asked(portrait, caller.task_id)
            all_news = self._own(portrait, caller, wanted)
        async with aclosing(all_news):
            async for task_id, news in all_news:
                if isinstance(news, Completed):
                    self._access_log.completed(news)
                yield task_id, news

    async def _own(
        self, portrait: Portrait, caller: Caller, wanted: NewsWanted
    ) -> AsyncGenerator[tuple[str, News], None]:
        async with aclosing(self._generator.generate(portrait, caller, wanted)) as all_news:
            async for news in all_news:
                yield caller.task_id, news

    async def _shared(
        self, key: Key, fingerprint: bytes, portrait: Portrait, caller: Caller, wanted: NewsWanted
    ) -> AsyncGenerator[tuple[str, News], None]:
        """Tell the news of the generation that has this key; the first to ask starts it."""
        told_pictures = False
        while True:
            shared = self._idempotency.find(key, fingerprint)
            if is_mine := shared is None:
                news_of_mine = self._generator.generate(portrait, caller, wanted)
                shared = self._idempotency.start(key, caller.task_id, fingerprint, news_of_mine)
            self._access_log.asked(portrait, shared.task_id)
            current_call().note(joined=not is_mine)
            try:
                async with aclosing(shared.follow()) as all_news:
                    async for news in all_news:
                        told_pictures = told_pictures or isinstance(news, FinishedImage)
                        yield shared.task_id, news
                return
            except BaseException as error:
                its_own = shared.error is error and is_its_first_callers_own(error)
                if is_mine or told_pictures or not its_own:
                    raise


async def _fingerprint(request: Any) -> bytes:
    """Return the portrait's fingerprint; one with large pictures is hashed beside the loop."""
    portrait = request.portrait
    pictures = len(portrait.reference_image) + sum(len(each.image) for each in portrait.references)
    if pictures < HASHED_AT_ONCE_BYTES:
        return portrait_fingerprint(request)
    return await asyncio.to_thread(portrait_fingerprint, request)


def _draw_seed() -> int:
    return secrets.randbelow(SEED_COUNT)
