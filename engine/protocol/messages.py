"""The messages between the server and an engine process, as msgspec structs.

A message may carry one tensor beside it; :mod:`engine.protocol.framing` says how both travel. Durations are
in seconds. Moments never cross: the two processes need not share a clock, so deadlines travel as seconds that
remain.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Base of every message."""


# --- server to engine ------------------------------------------------------------------------------


class Submit(Message, frozen=True, kw_only=True):
    """Run a job. Carries the tokens of its references ``[references, tokens, width]`` f32; without any, no tensor.

    A job is a pure function of this message and its tensor: submitting it again gives the same pictures.
    """

    job_id: str
    prompt: str
    negative_prompt: str
    sampler: str
    steps: int
    guidance_scale: float
    guidance_rescale: float
    ip_adapter_scale: float
    width: int
    height: int
    seeds: tuple[int, ...]
    """One for each image."""
    adapter: str = ""
    """Whose tokens the references are; empty for the model's default."""
    reference_weights: tuple[float, ...] = ()
    """One for each reference, or none where each weighs 1; multiplies ``ip_adapter_scale``."""
    reference_regions: tuple[tuple[float, float, float, float] | None, ...] = ()
    """One for each reference (left, top, right, bottom as parts of the picture; None: everywhere), or none at all."""
    reference_layers: str = "all"
    """One of ``ModelInfo.reference_layers``."""
    priority: int = 0
    """0 interactive, 1 batch (``engine.scheduling.Priority``)."""
    deadline: float | None = None
    """Seconds that remain, or None."""
    deterministic: bool = False
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    """Step i of n is guided when ``guidance_start <= i / n`` and ``(i + 1) / n <= guidance_end``."""
    progress: bool = False
    """Whether the server wants ``Queued`` again and every ``Step``; the last ``Step`` is told in any case."""
    preview_interval: int = 0
    """Steps between previews; 0 for none."""


class Cancel(Message, frozen=True, kw_only=True):
    """Forget a job; its rows are free from the next tick.

    Answered by ``Failed(CANCELLED)`` unless the job is unknown or already done.
    """

    job_id: str


class EncodeReference(Message, frozen=True, kw_only=True):
    """Encode a reference. Carries the preprocessed picture ``[S, S, 3]`` u8 RGB."""

    request_id: str
    adapter: str = ""
    """Whose tokens are wanted; empty for the model's default."""


class Shutdown(Message, frozen=True, kw_only=True):
    """Finish nothing more and exit with status 0."""


# --- engine to server ------------------------------------------------------------------------------


class AdapterInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One adapter of the model (see ``engine.backends.base.AdapterFacts``)."""

    name: str
    kind: str
    tokens: int
    weights_hash: str


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the loaded model is and takes (see ``engine.backends.base.ModelFacts``)."""

    name: str
    family: str
    weights_hash: str
    adapters: tuple[AdapterInfo, ...]
    """The first is the default."""
    reference_layers: tuple[str, ...]
    """Presets of layers that a reference may act on, ``all`` among them (``engine.models.layer_presets``)."""
    max_references: int
    latent_channels: int
    latent_scale: int
    default_height: int
    default_width: int
    size_multiple: int
    min_size: int
    max_size: int
    prompt_tokens: int
    reference_size: int
    token_width: int
    preprocessing: str
    preprocessor: dict[str, Any]
    """What ``engine.models.preprocess`` needs to turn a picture into the image encoder's input."""
    default_sampler: str
    default_steps: int
    default_guidance_scale: float
    reference_regions: bool = False
    """Whether references may have regions."""


class SamplerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The step counts that a sampler takes with this model."""

    name: str
    min_steps: int
    max_steps: int


class Loading(Message, frozen=True, kw_only=True):
    """The engine is on its way: ``phase`` is ``loading`` or ``warming``."""

    phase: str


class Ready(Message, frozen=True, kw_only=True):
    """The engine takes jobs.

    ``tick_seconds`` is the calibrated time of one tick for each bucket at the default size.
    """

    model: ModelInfo
    samplers: tuple[SamplerInfo, ...]
    buckets: tuple[int, ...]
    tick_seconds: dict[str, float]
    backend: str
    device: str
    pid: int
    load_seconds: float
    warmup_seconds: float


class Queued(Message, frozen=True, kw_only=True):
    """The job was admitted."""

    job_id: str
    position: int
    starts_in: float
    finishes_in: float


class Started(Message, frozen=True, kw_only=True):
    """The job's first row is in the next tick."""

    job_id: str
    queue_seconds: float


class Step(Message, frozen=True, kw_only=True):
    """Every image of the job has ``step`` steps behind it."""

    job_id: str
    step: int
    steps: int


class PreviewReady(Message, frozen=True, kw_only=True):
    """Carries a preview ``[h, w, 3]`` u8 RGB at latent resolution."""

    job_id: str
    index: int
    step: int


class ImageReady(Message, frozen=True, kw_only=True):
    """Carries a finished image ``[H, W, 3]`` u8 RGB."""

    job_id: str
    index: int
    seed: int


class Finished(Message, frozen=True, kw_only=True):
    """The job is done; every image was sent before."""

    job_id: str
    queue_seconds: float
    encode_prompt_seconds: float
    denoise_seconds: float
    decode_seconds: float
    mean_batch_rows: float
    prompt_dropped: str
    """What the text encoder did not see of the prompt."""
    negative_prompt_dropped: str


class FailureReason(StrEnum):
    """Why a job ended without its pictures."""

    INFEASIBLE = "infeasible"
    QUEUE_FULL = "queue_full"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    NUMERICAL = "numerical"
    INVALID = "invalid"
    INTERNAL = "internal"


class Failed(Message, frozen=True, kw_only=True):
    """The job ended without its pictures; no other job was touched."""

    job_id: str
    reason: FailureReason
    message: str
    phase: str = ""
    """Where it was: ``queued``, ``denoising`` or ``decoding``."""
    retry_after: float | None = None
    least_seconds: float | None = None
    """Of an infeasible job: what it takes on an idle engine."""


class ReferenceEncoded(Message, frozen=True, kw_only=True):
    """Carries the projected tokens ``[tokens, width]`` f32."""

    request_id: str
    seconds: float
    batch: int
    """Pictures that the image encoder took in this call."""


class ReferenceFailed(Message, frozen=True, kw_only=True):
    """The image encoder could not encode this picture."""

    request_id: str
    message: str


class TickReport(Message, frozen=True, kw_only=True):
    """One UNet call, and the engine's state after it.

    Also sent about once a second while idle, with ``bucket`` 0.
    """

    bucket: int
    useful_rows: int
    seconds: float
    waiting: int
    """Images that have not started."""
    running: int
    """Images that have started, pre-empted ones included."""
    oldest_wait_seconds: float
    busy_seconds: float
    """Seconds that the engine worked (ticks, encoding, decoding) since it started."""
    encoded_references: int
    """References that the image encoder took since the engine started."""
    resident_bytes: int
    cpu_seconds: float
    jobs: tuple[str, ...] = ()
    """Whose rows it had; for the server's traces."""


ToEngine = Submit | Cancel | EncodeReference | Shutdown
"""What a server sends."""

ToServer = (
    Loading
    | Ready
    | Queued
    | Started
    | Step
    | PreviewReady
    | ImageReady
    | Finished
    | Failed
    | ReferenceEncoded
    | ReferenceFailed
    | TickReport
)
"""What an engine sends."""

AnyMessage = ToEngine | ToServer
