"""The client for asyncio."""

import asyncio
from typing import TYPE_CHECKING, Self, Unpack

import grpc.aio

from limner_client import plans
from limner_client.aio import AsyncDriver, AsyncLane, AsyncPortraitStream, AsyncWait, wait_for_event
from limner_client.catalog import Health, Info, Limits
from limner_client.channel import DEFAULT_TARGET, ChannelSettings
from limner_client.effects import Plan, T
from limner_client.exchange import Session
from limner_client.memory import ReferenceMemory
from limner_client.portrait import Portrait
from limner_client.reference import Reference, load_image, load_references
from limner_client.retry import RetryPolicy
from limner_client.settings import PortraitSpec, Settings

if TYPE_CHECKING:
    from limner_client.reference import ImageSource, References


class AsyncClient:
    """Calls a Limner server from asyncio. Its methods and arguments are those of `Client`.

    It belongs to the event loop of its first call. Cancelling a task cancels its call, which frees the
    server's rows within a tick.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        tenant: str = "",
        timeout: float = 120.0,
        retry: RetryPolicy | None = None,
        channel: ChannelSettings | None = None,
        memory_bytes: int = 64 * 2**20,
    ) -> None:
        self._target = target
        self._settings = channel or ChannelSettings()
        self._session = Session(
            tenant=tenant, retry=retry or RetryPolicy(), memory=ReferenceMemory(memory_bytes)
        )
        self._timeout = timeout
        self._wait: AsyncWait = wait_for_event
        self._channel: grpc.aio.Channel | None = None

    async def generate(
        self,
        prompt: str,
        reference: "References" = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  the deadline travels to the server
        idempotency_key: str | None = None,
        **settings: Unpack[Settings],
    ) -> Portrait:
        """Generate a portrait and return it when every image is ready; see `Client.generate`."""
        plan = plans.generate(
            self._session,
            PortraitSpec(prompt=prompt, **settings),
            await asyncio.to_thread(load_references, reference),
            timeout=timeout or self._timeout,
            idempotency_key=idempotency_key,
        )
        return await self._run(plan)

    def stream(
        self,
        prompt: str,
        reference: "References" = None,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        preview_interval: int = 0,
        **settings: Unpack[Settings],
    ) -> AsyncPortraitStream:
        """Generate a portrait and iterate, with `async for`, over news of it; see `Client.stream`."""
        spec = PortraitSpec(prompt=prompt, **settings)

        async def start() -> tuple[Plan[None], AsyncLane]:
            plan = plans.stream(
                self._session,
                spec,
                await asyncio.to_thread(load_references, reference),
                timeout=timeout or self._timeout,
                idempotency_key=idempotency_key,
                preview_interval=preview_interval,
            )
            return plan, self._lane()

        return AsyncPortraitStream(start)

    async def upload(
        self,
        image: "ImageSource",
        *,
        adapter: str = "",
        model: str = "",
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Reference:
        """Upload a picture for an adapter of a model, empty for the default of each.

        Returns its digest and what was found in it.
        """
        picture = await asyncio.to_thread(load_image, image)
        timeout = timeout or self._timeout
        plan = plans.upload(self._session, picture, adapter=adapter, model=model, timeout=timeout)
        return await self._run(plan)

    async def get_reference(self, digest: str, *, timeout: float = 10.0) -> Reference:  # noqa: ASYNC109
        """Tell what the server knows of a reference. Raises ReferenceNotFound."""
        return await self._run(plans.get_reference(self._session, digest, timeout=timeout))

    async def delete_reference(
        self,
        reference: Reference | str,
        *,
        timeout: float = 10.0,  # noqa: ASYNC109
    ) -> None:
        """Make the server forget a reference (or its digest). Raises ReferenceNotFound when it is unknown."""
        digest = reference.digest if isinstance(reference, Reference) else reference
        await self._run(plans.delete_reference(self._session, digest, timeout=timeout))

    async def info(self, *, timeout: float = 10.0) -> Info:  # noqa: ASYNC109
        """List the models that requests can name, the default first."""
        return await self._run(plans.info(self._session, timeout=timeout))

    async def limits(self, *, timeout: float = 10.0) -> Limits:  # noqa: ASYNC109
        """Tell the limits that requests are held to."""
        return await self._run(plans.limits(self._session, timeout=timeout))

    async def health(self, *, timeout: float = 5.0) -> Health:  # noqa: ASYNC109
        """Ask once, without retries, whether the server is alive and ready. Raises Unavailable."""
        return await self._run(plans.health(self._session, timeout=timeout))

    async def close(self) -> None:
        """Close the connection; calls in flight end with `Cancelled`."""
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _lane(self) -> AsyncLane:
        if self._channel is None:  # not in the constructor: the channel binds to the running event loop
            arguments = self._settings.arguments()
            tls = self._settings.tls
            self._channel = (
                grpc.aio.insecure_channel(self._target, arguments)
                if tls is None
                else grpc.aio.secure_channel(self._target, tls.credentials(), arguments)
            )
        return AsyncLane(self._channel, self._wait)

    async def _run(self, plan: Plan[T]) -> T:
        return await AsyncDriver(plan, self._lane()).run()
