"""The logic of every call, without input or output; see `effects`."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from limner_client import wire
from limner_client.catalog import Health, Info, Limits
from limner_client.choices import CacheOutcome
from limner_client.effects import Emit, Open, Plan, Receive
from limner_client.errors import LimnerError, ReferenceNotFound, ServerFault
from limner_client.events import Completed, ImageReady
from limner_client.exchange import Exchange, Session
from limner_client.portrait import Image, Portrait
from limner_client.reference import LocalReference, Reference
from limner_client.retry import NO_RETRY
from limner_client.settings import PortraitSpec

T = TypeVar("T")
References = tuple[LocalReference, ...]


def upload(
    session: Session, picture: LocalReference, *, adapter: str, model: str, timeout: float
) -> Plan[Reference]:
    """Upload a picture for an adapter of a model."""
    exchange = Exchange(session, timeout=timeout, digest=picture.digest)
    return (yield from _upload(exchange, picture.digest, picture.data or b"", adapter, model))


def get_reference(session: Session, digest: str, *, timeout: float) -> Plan[Reference]:
    """Ask what is known of a reference."""
    exchange = Exchange(session, timeout=timeout, digest=digest)
    reply = yield from exchange.ask(wire.GET_REFERENCE, wire.encode_get_reference(digest))
    return wire.decode_get_reference(reply)


def delete_reference(session: Session, digest: str, *, timeout: float) -> Plan[None]:
    """Make the server and this client forget a reference."""
    session.memory.forget(digest)
    exchange = Exchange(session, timeout=timeout, digest=digest)
    yield from exchange.ask(wire.DELETE_REFERENCE, wire.encode_delete_reference(digest))


def info(session: Session, *, timeout: float) -> Plan[Info]:
    """List the models."""
    reply = yield from Exchange(session, timeout=timeout).ask(wire.LIST_MODELS, wire.encode_list_models())
    return wire.decode_list_models(reply)


def limits(session: Session, *, timeout: float) -> Plan[Limits]:
    """Ask for the limits."""
    reply = yield from Exchange(session, timeout=timeout).ask(wire.GET_LIMITS, wire.encode_get_limits())
    return wire.decode_get_limits(reply)


def health(session: Session, *, timeout: float) -> Plan[Health]:
    """Ask once, without retries, whether the server is alive and ready."""
    exchange = Exchange(session, timeout=timeout, retry=NO_RETRY)
    answers = []
    for service in (wire.LIVENESS, wire.READINESS):
        reply = yield from exchange.ask(wire.HEALTH_CHECK, wire.encode_health_check(service))
        answers.append(wire.decode_health_check(reply))
    live, ready = answers
    return Health(live=live, ready=ready)


def generate(
    session: Session,
    spec: PortraitSpec,
    references: References,
    *,
    timeout: float,
    idempotency_key: str | None,
) -> Plan[Portrait]:
    """Generate a portrait and return it when every image is ready."""
    exchange, key, spec = _prepare(session, spec, references, timeout, idempotency_key)

    def attempt(given: References) -> Plan[Portrait]:
        reply = yield from exchange.ask(wire.GENERATE, wire.encode_generate(spec, given, key))
        portrait = wire.decode_generate(reply, exchange.request_id)
        return replace(portrait, upload_outcome=exchange.upload_outcome)

    return (yield from _with_references(exchange, references, spec, attempt))


def stream(
    session: Session,
    spec: PortraitSpec,
    references: References,
    *,
    timeout: float,
    idempotency_key: str | None,
    preview_interval: int,
) -> Plan[None]:
    """Generate a portrait and emit news of it, each image once, and `Completed` last."""
    exchange, key, spec = _prepare(session, spec, references, timeout, idempotency_key)
    images: dict[int, Image] = {}

    def attempt(given: References) -> Plan[None]:
        request = wire.encode_generate_stream(spec, given, key, preview_interval)
        return _stream_with_retries(exchange, request, images)

    yield from _with_references(exchange, references, spec, attempt)


def _prepare(
    session: Session,
    spec: PortraitSpec,
    references: References,
    timeout: float,
    idempotency_key: str | None,
) -> tuple[Exchange, str, PortraitSpec]:
    """Fix what a retry must repeat: the idempotency key, and the seed, so that any replica makes the same."""
    for reference in references:
        if reference.data is not None:
            session.memory.keep(reference.digest, reference.data)
    # A proxy hashes the first one's digest: the same blend always meets the same replica.
    exchange = Exchange(session, timeout=timeout, digest=references[0].digest if references else "")
    if spec.seed is None:
        spec = replace(spec, seed=session.random.getrandbits(32))
    return exchange, idempotency_key or session.new_id(), spec


def _upload(exchange: Exchange, digest: str, data: bytes, adapter: str, model: str) -> Plan[Reference]:
    exchange.session.memory.keep(digest, data)
    request = wire.encode_upload_reference(data, adapter, model)
    reply = yield from exchange.ask(wire.UPLOAD_REFERENCE, request)
    reference = wire.decode_upload_reference(reply)
    if exchange.upload_outcome is not CacheOutcome.MISS:
        exchange.upload_outcome = reference.cache_outcome
    return reference


def _with_references(
    exchange: Exchange,
    references: References,
    spec: PortraitSpec,
    attempt: Callable[[References], Plan[T]],
) -> Plan[T]:
    """Try with the digests alone; where some are unknown, upload their pictures and try again.

    A digest that is unknown after its upload means that the two calls reached different servers (no hashing on
    `x-limner-reference` in front of them); then the picture travels in the request itself.
    """
    uploaded: set[str] = set()
    inline: dict[str, bytes] = {}
    while True:
        given = tuple(replace(reference, data=inline.get(reference.digest)) for reference in references)
        try:
            return (yield from attempt(given))
        except ReferenceNotFound as error:
            pictures = _pictures_of_unknown(exchange, references, error)
            if not pictures or pictures.keys() <= inline.keys():
                raise
        for digest, data in pictures.items():
            if digest in uploaded:
                inline[digest] = data
            else:
                yield from _upload(exchange, digest, data, spec.adapter or "", spec.model or "")
                uploaded.add(digest)


def _pictures_of_unknown(
    exchange: Exchange, references: References, error: ReferenceNotFound
) -> dict[str, bytes]:
    """Give the pictures that the server lacks, by digest; none when one of them is not at hand."""
    told = (error.metadata.get("digests") or error.metadata.get("digest", "")).split()
    at_hand = {reference.digest: reference.data for reference in references}
    pictures: dict[str, bytes] = {}
    for digest in [digest for digest in told if digest in at_hand] or at_hand:
        data = at_hand[digest] or exchange.session.memory.find(digest)
        if data is None:
            return {}
        pictures[digest] = data
    return pictures


def _stream_with_retries(exchange: Exchange, request: bytes, images: dict[int, Image]) -> Plan[None]:
    attempt = 1
    while True:
        try:
            return (yield from _stream_once(exchange, request, images))
        except LimnerError as error:
            yield from exchange.wait_or_raise(error, attempt)
            attempt += 1


def _stream_once(exchange: Exchange, request: bytes, images: dict[int, Image]) -> Plan[None]:
    """Emit the events of one try; images that an earlier try delivered are not emitted again."""
    yield Open(call=exchange.call(wire.GENERATE_STREAM, request))
    while (message := (yield Receive())) is not None:
        event = wire.decode_event(message, tuple(images.values()), exchange.request_id)
        if isinstance(event, ImageReady):
            if event.image.index in images:
                continue
            images[event.image.index] = event.image
        if isinstance(event, Completed):
            event = replace(event, portrait=replace(event.portrait, upload_outcome=exchange.upload_outcome))
        if event is not None:
            yield Emit(event=event)
        if isinstance(event, Completed):
            return
    raise ServerFault(
        "the stream ended without its last message", code="INTERNAL", request_id=exchange.request_id
    )
