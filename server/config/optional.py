"""Options of what is off unless it is asked for."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class TracingOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenTelemetry traces (`docs/tracing.md`)."""

    endpoint: Annotated[
        str,
        Meta(
            pattern=r"^(https?://[^\s/]+/?|[^\s/:]+:\d+)?$",
            description="OTLP/gRPC collector for traces, such as `http://localhost:4317`; `https` for TLS. "
            "Empty, the default, traces nothing. `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` and "
            "`OTEL_EXPORTER_OTLP_ENDPOINT` set it as well, below this option's own variable.",
        ),
    ] = ""


class KserveOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The Open Inference Protocol (`docs/kserve.md`)."""

    enabled: Annotated[
        bool,
        Meta(description="Whether `inference.GRPCInferenceService` is served beside `limner.v1`."),
    ] = False
