"""Python client of the Limner portrait service.

A creative conditioning layer for portraits: never identity verification, biometrics or forensics.
"""

from limner_client.aio import AsyncPortraitStream
from limner_client.async_client import AsyncClient
from limner_client.blocking import PortraitStream
from limner_client.catalog import Health, Info, Limits, Model, SamplerLimits
from limner_client.channel import ChannelSettings, Tls
from limner_client.choices import (
    CacheOutcome,
    ImageFormat,
    Priority,
    ReferenceLayers,
    Sampler,
    WarningCode,
)
from limner_client.client import Client
from limner_client.errors import (
    Cancelled,
    DeadlineExceeded,
    DeadlineInfeasible,
    FieldViolation,
    GenerationFailed,
    InvalidRequest,
    LimnerError,
    ModelNotFound,
    Overloaded,
    ReferenceNotFound,
    ServerFault,
    Unavailable,
)
from limner_client.events import Completed, Event, ImageReady, Preview, Progress, Queued
from limner_client.portrait import Image, Parameters, Portrait, PortraitWarning, ReferenceUse, Timings
from limner_client.reference import Reference, WeightedReference
from limner_client.retry import RetryPolicy
from limner_client.settings import Settings

__all__ = [
    "AsyncClient",
    "AsyncPortraitStream",
    "CacheOutcome",
    "Cancelled",
    "ChannelSettings",
    "Client",
    "Completed",
    "DeadlineExceeded",
    "DeadlineInfeasible",
    "Event",
    "FieldViolation",
    "GenerationFailed",
    "Health",
    "Image",
    "ImageFormat",
    "ImageReady",
    "Info",
    "InvalidRequest",
    "Limits",
    "LimnerError",
    "Model",
    "ModelNotFound",
    "Overloaded",
    "Parameters",
    "Portrait",
    "PortraitStream",
    "PortraitWarning",
    "Preview",
    "Priority",
    "Progress",
    "Queued",
    "Reference",
    "ReferenceLayers",
    "ReferenceNotFound",
    "ReferenceUse",
    "RetryPolicy",
    "Sampler",
    "SamplerLimits",
    "ServerFault",
    "Settings",
    "Timings",
    "Tls",
    "Unavailable",
    "WarningCode",
    "WeightedReference",
]
