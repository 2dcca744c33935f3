"""The values that labels take. Every one is bounded: none is a digest, a prompt or a user."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """A stage of a request."""

    DECODE_INPUT = "decode_input"
    ENCODE_REFERENCE = "encode_reference"
    ENCODE_PROMPT = "encode_prompt"
    DENOISE = "denoise"
    DECODE_LATENTS = "decode_latents"
    ENCODE_OUTPUT = "encode_output"


class RequestOutcome(StrEnum):
    """How a request ended."""

    OK = "ok"
    INVALID = "invalid"
    NOT_FOUND = "not_found"
    REJECTED = "rejected"
    UNAVAILABLE = "unavailable"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    FAILED = "failed"


class RejectReason(StrEnum):
    """Why a request was refused; the proto's ``ErrorReason`` in lower case, as far as it is a refusal."""

    OVERLOADED = "overloaded"
    DEADLINE_INFEASIBLE = "deadline_infeasible"
    DRAINING = "draining"
    ENGINE_UNAVAILABLE = "engine_unavailable"
    INVALID_FIELD = "invalid_field"
    INVALID_IMAGE = "invalid_image"
    REFERENCE_NOT_FOUND = "reference_not_found"
    MODEL_NOT_FOUND = "model_not_found"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    OTHER = "other"

    @classmethod
    def _missing_(cls, value: object) -> RejectReason:
        return cls.OTHER


class Phase(StrEnum):
    """Where a request was when it was cancelled; the middle three are the engine's own words
    (``Failed.phase``). It is denoising until each of its images took its last step, decoding until the last
    of them came from the engine, and encoding its output from then on.
    """

    ADMITTED = "admitted"
    QUEUED = "queued"
    DENOISING = "denoising"
    DECODING = "decoding"
    ENCODING_OUTPUT = "encoding_output"
    OTHER = "other"

    @classmethod
    def _missing_(cls, value: object) -> Phase:
        return cls.OTHER


class RpcType(StrEnum):
    """go-grpc-prometheus' ``grpc_type``."""

    UNARY = "unary"
    SERVER_STREAM = "server_stream"
    CLIENT_STREAM = "client_stream"
    BIDI_STREAM = "bidi_stream"
