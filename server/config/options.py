"""Every option of the server: its name, type, default, bounds and what it is for."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from server.config.engine_options import EngineOptions
from server.config.listen_options import ListenOptions
from server.config.optional import KserveOptions, TracingOptions
from server.config.redis_options import RedisOptions
from server.config.tls_options import TlsOptions
from server.config.units import MIB


class LimitOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What requests are held to."""

    max_image_bytes: Annotated[int, Meta(ge=1, description="Largest reference, in bytes of the file.")] = (
        16 * MIB
    )
    max_image_pixels: Annotated[
        int,
        Meta(
            ge=1,
            le=89_478_485,
            description="Largest reference, width times height as its file declares them.",
        ),
    ] = 50_000_000
    min_image_side: Annotated[
        int, Meta(ge=1, description="Smallest width and height of a reference, in pixels.")
    ] = 16
    max_prompt_characters: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Longest prompt and longest negative prompt, in Unicode code points.",
        ),
    ] = 2000
    max_steps: Annotated[
        int, Meta(ge=1, description="Most denoising steps; a sampler's own limit holds as well.")
    ] = 100
    max_images: Annotated[int, Meta(ge=1, le=8, description="Most images of one request.")] = 8
    max_guidance_scale: Annotated[float, Meta(ge=1, description="Largest guidance scale.")] = 30.0
    max_ip_adapter_scale: Annotated[float, Meta(ge=0, description="Largest weight of the reference.")] = 2.0
    max_references: Annotated[
        int,
        Meta(ge=1, le=4, description="Most references of one request; four is what an engine has room for."),
    ] = 4
    max_reference_weight: Annotated[
        float, Meta(ge=1, description="Largest weight of one of several references.")
    ] = 2.0
    max_message_bytes: Annotated[
        int,
        Meta(
            ge=4096,
            description="Largest gRPC message that is read; must leave room for `max_image_bytes`. A reference that is "
            "too large is refused with its field named, but a message beyond this one by gRPC itself, without details.",
        ),
    ] = 64 * MIB


class AdmissionOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much is let in at once."""

    max_requests_in_flight: Annotated[
        int, Meta(ge=1, description="Generations and uploads in flight; more are refused with OVERLOADED.")
    ] = 256
    max_concurrent_rpcs: Annotated[
        int,
        Meta(
            ge=2,
            description="RPCs of any kind at once, health checks and calls on their way to a refusal included; must be "
            "above `max_requests_in_flight`. Each can hold a message of `max_message_bytes`. More are refused with "
            "RESOURCE_EXHAUSTED by gRPC itself, without details.",
        ),
    ] = 1024
    max_pictures_waiting: Annotated[
        int,
        Meta(
            ge=1,
            description="References that wait for a thread to be decoded; more are refused with OVERLOADED.",
        ),
    ] = 256


class ImagingOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Threads for pictures."""

    decode_threads: Annotated[int, Meta(ge=1, le=256, description="Threads that decode references.")] = 2
    encode_threads: Annotated[int, Meta(ge=1, le=256, description="Threads that encode finished images.")] = 2


class ReferenceOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The reference cache."""

    cache_bytes: Annotated[
        int,
        Meta(ge=0, description="Memory for the embeddings of references; the least recently used go first."),
    ] = 64 * MIB


class DrainOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens on SIGTERM. A second SIGTERM ends the server at once."""

    notice_seconds: Annotated[
        float,
        Meta(
            ge=0,
            description="Time between NOT_SERVING and the first refused call, for load balancers to notice.",
        ),
    ] = 3.0
    grace_seconds: Annotated[
        float, Meta(ge=0, description="Longest wait after that for calls in flight.")
    ] = 60.0


class LogOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The log, on standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least level that is written.")
    ] = "info"
    format: Annotated[
        Literal["auto", "json", "console"],
        Meta(
            description="`json`: an object a line. `console`: key-value. `auto`: console on a terminal, else json."
        ),
    ] = "auto"
    prompts: Annotated[
        bool, Meta(description="Whether the access log holds prompts. They may be personal data.")
    ] = False


class IdempotencyOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Results kept for retries with the same idempotency key."""

    ttl_seconds: Annotated[
        float, Meta(ge=0, description="How long a result is kept after it is complete.")
    ] = 600.0
    max_bytes: Annotated[int, Meta(ge=0, description="Memory for such results; the oldest go first.")] = (
        64 * MIB
    )


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The server's whole configuration."""

    listen: ListenOptions = ListenOptions()
    tls: TlsOptions = TlsOptions()
    limits: LimitOptions = LimitOptions()
    admission: AdmissionOptions = AdmissionOptions()
    imaging: ImagingOptions = ImagingOptions()
    references: ReferenceOptions = ReferenceOptions()
    redis: RedisOptions = RedisOptions()
    engine: EngineOptions = EngineOptions()
    drain: DrainOptions = DrainOptions()
    log: LogOptions = LogOptions()
    idempotency: IdempotencyOptions = IdempotencyOptions()
    tracing: TracingOptions = TracingOptions()
    kserve: KserveOptions = KserveOptions()
