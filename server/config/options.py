"""Every option of the server: its name, type, default, bounds and what it is for."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

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


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The engine processes, one a model."""

    model: Annotated[
        str,
        Meta(
            description="Directory of the default model, in diffusers' layout or exported (docs/backends.md). Empty "
            "for the one in the package. `name=path`, or `name=`, serves it under a name of your choice."
        ),
    ] = ""
    models: Annotated[
        tuple[str, ...],
        Meta(
            description="Further models that requests can name, each a path or `name=path`; without a name it is the "
            "directory's. Each has an engine process of its own with all options of this section but `adapter` and "
            "`loras`, which are the default model's alone (docs/models.md)."
        ),
    ] = ()
    adapter: Annotated[
        str,
        Meta(
            description="Default IP-Adapter, by its file's stem, where the model has several. Empty for the only one, "
            "or the one that the model's `limner.json` names."
        ),
    ] = ""
    loras: Annotated[
        tuple[str, ...],
        Meta(
            description="LoRAs to fuse into the model's weights, each a path or `path:scale`, beside those in its "
            "`lora/`."
        ),
    ] = ()
    backend: Annotated[
        str,
        Meta(
            description="What computes: `openvino`, `onnxruntime`, `torch`, `tensorrt` or `tensorrt-rtx`. Empty leaves "
            "it to the engine: `openvino` on a CPU, `torch` on a GPU. docs/backends.md says how to choose."
        ),
    ] = ""
    cache_dir: Annotated[
        str,
        Meta(
            description="Folder for exported and compiled models, which the first start fills. Empty for `limner` in "
            "the user's cache directory (`XDG_CACHE_HOME`, or `~/.cache`)."
        ),
    ] = ""
    device: Annotated[
        str, Meta(description="Device to compute on, as torch names it, such as `cpu` or `cuda:0`.")
    ] = "cpu"
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Meta(
            description="Type to compute in. `auto` is bfloat16 with `openvino` on a CPU that has instructions for it, "
            "and float32 otherwise."
        ),
    ] = "auto"
    threads: Annotated[
        int, Meta(ge=0, le=1024, description="CPU threads of the backend; 0 leaves their number to it.")
    ] = 0
    lanes: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="Parts of a tick's rows that run at the same time, each on its share of the threads, as many "
            "as divide a bucket evenly; openvino alone. A lane for each thread makes a small model faster and takes "
            "more memory: backends.md.",
        ),
    ] = 1
    buckets: Annotated[
        tuple[Annotated[int, Meta(ge=1)], ...],
        Meta(description="Batch sizes, in rows, that ticks run in. Empty for all that the backend has."),
    ] = ()
    deterministic_bucket: Annotated[
        int,
        Meta(
            ge=0,
            le=1024,
            description="The one bucket of ticks that hold a deterministic image, a power of two; 0 chooses.",
        ),
    ] = 0
    prompt_cache_bytes: Annotated[
        int, Meta(ge=0, description="Memory for prompt embeddings in the engine; 0 keeps none.")
    ] = 64 * MIB
    headroom: Annotated[
        float,
        Meta(ge=1, le=100, description="Factor on predicted times before they are held against a deadline."),
    ] = 1.1
    aging_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="A batch image gives way to interactive ones that come within so long after it.",
        ),
    ] = 30.0
    max_images_waiting: Annotated[
        int,
        Meta(
            ge=1,
            description="Images that may wait in the engine for their first tick; more are refused with OVERLOADED.",
        ),
    ] = 1024
    start_timeout_seconds: Annotated[
        float, Meta(gt=0, description="Longest wait for an engine to load and warm up before it is killed.")
    ] = 900.0
    stall_timeout_seconds: Annotated[
        float,
        Meta(
            ge=0,
            description="A ready engine that says nothing for so long, from its first moment on, is killed and "
            "replaced; 0 never does.",
        ),
    ] = 300.0
    stop_timeout_seconds: Annotated[
        float,
        Meta(ge=0, description="Longest wait for an engine to exit when it is told to, before it is killed."),
    ] = 5.0
    restart_delay_seconds: Annotated[
        float,
        Meta(
            ge=0,
            description="Wait before a dead engine is replaced; doubles with each death that follows soon.",
        ),
    ] = 0.2
    restart_delay_max_seconds: Annotated[float, Meta(ge=0, description="Longest such wait.")] = 30.0
    patience_seconds: Annotated[
        float,
        Meta(
            gt=0,
            description="When no engine is back so long after one was lost, all work that waits fails with "
            "ENGINE_UNAVAILABLE, however short its wait, and new work at once until an engine is ready.",
        ),
    ] = 120.0


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
