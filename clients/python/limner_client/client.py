"""The client for threads."""

import threading
from typing import TYPE_CHECKING, Self, Unpack

import grpc

from limner_client import plans
from limner_client.blocking import Driver, Lane, PortraitStream, Wait
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


class Client:
    """Calls a Limner server. Safe to share between threads; make one and keep it, for its connection's sake.

    target: `host:port`, or any gRPC name such as `dns:///limner.example:443`.
    tenant: whose references these are; printable ASCII.
    timeout: seconds that `generate`, `stream` and `upload` may take by default, retries included.
    retry: when to try again; see `RetryPolicy`.
    memory_bytes: bound on the pictures that are kept here, so that one that the server has evicted can be
        uploaded again when a later call names it by its digest alone.

    Every method raises a `LimnerError`, and OSError, TypeError or ValueError when an argument is unusable.
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
        settings = channel or ChannelSettings()
        arguments = settings.arguments()
        self._session = Session(
            tenant=tenant, retry=retry or RetryPolicy(), memory=ReferenceMemory(memory_bytes)
        )
        self._timeout = timeout
        self._wait: Wait = threading.Event.wait
        if settings.tls is None:
            self._channel = grpc.insecure_channel(target, arguments)
        else:
            self._channel = grpc.secure_channel(target, settings.tls.credentials(), arguments)

    def generate(
        self,
        prompt: str,
        reference: "References" = None,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        **settings: Unpack[Settings],
    ) -> Portrait:
        """Generate a portrait and return it when every image is ready.

        reference: bytes, a path or a Pillow image, a digest, or what `upload` returned; or a list of up to
            `Limits.max_references` of them, each alone or as a `WeightedReference`. Only digests are sent; a
            picture is uploaded when the server does not know it (any more), and the call repeated.
        idempotency_key: one is drawn for each call, so that a retry never makes a second generation; pass
            your own to extend that over calls.
        """
        plan = plans.generate(
            self._session,
            PortraitSpec(prompt=prompt, **settings),
            load_references(reference),
            timeout=timeout or self._timeout,
            idempotency_key=idempotency_key,
        )
        return self._run(plan)

    def stream(
        self,
        prompt: str,
        reference: "References" = None,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        preview_interval: int = 0,
        **settings: Unpack[Settings],
    ) -> PortraitStream:
        """Generate a portrait and iterate over news of it: queued, each step, each image, completed.

        preview_interval: ask for a cheap preview after every so many steps; 0 asks for none.
        The other arguments are those of `generate`.
        """
        plan = plans.stream(
            self._session,
            PortraitSpec(prompt=prompt, **settings),
            load_references(reference),
            timeout=timeout or self._timeout,
            idempotency_key=idempotency_key,
            preview_interval=preview_interval,
        )
        return PortraitStream(plan, self._lane())

    def upload(
        self, image: "ImageSource", *, adapter: str = "", model: str = "", timeout: float | None = None
    ) -> Reference:
        """Upload a picture for an adapter of a model, empty for the default of each.

        Returns its digest and what was found in it.
        """
        timeout = timeout or self._timeout
        plan = plans.upload(self._session, load_image(image), adapter=adapter, model=model, timeout=timeout)
        return self._run(plan)

    def get_reference(self, digest: str, *, timeout: float = 10.0) -> Reference:
        """Tell what the server knows of a reference. Raises ReferenceNotFound."""
        return self._run(plans.get_reference(self._session, digest, timeout=timeout))

    def delete_reference(self, reference: Reference | str, *, timeout: float = 10.0) -> None:
        """Make the server forget a reference (or its digest). Raises ReferenceNotFound when it is unknown."""
        digest = reference.digest if isinstance(reference, Reference) else reference
        self._run(plans.delete_reference(self._session, digest, timeout=timeout))

    def info(self, *, timeout: float = 10.0) -> Info:
        """List the models that requests can name, the default first."""
        return self._run(plans.info(self._session, timeout=timeout))

    def limits(self, *, timeout: float = 10.0) -> Limits:
        """Tell the limits that requests are held to."""
        return self._run(plans.limits(self._session, timeout=timeout))

    def health(self, *, timeout: float = 5.0) -> Health:
        """Ask once, without retries, whether the server is alive and ready. Raises Unavailable."""
        return self._run(plans.health(self._session, timeout=timeout))

    def close(self) -> None:
        """Close the connection; calls in flight end with `Cancelled`."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lane(self) -> Lane:
        return Lane(self._channel, self._wait)

    def _run(self, plan: Plan[T]) -> T:
        return Driver(plan, self._lane()).run()
