"""OpenTelemetry's own variables: the collector that they name, and whether they switch traces off.

Platforms put them into every container, whether what runs there can use them or not. So what is wrong with them is
told, and never ends the start. https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec

import msgspec

from server.config.sources import Setting
from server.config.table import Option

ENDPOINT = "tracing.endpoint"
_COLLECTORS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""The more particular one first. https://opentelemetry.io/docs/specs/otel/protocol/exporter/"""
_PACKAGES = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.grpc")
"""What the extra ``tracing`` brings."""


def named_collector(
    environment: Mapping[str, str], option: Option, warn: Callable[[str], None]
) -> Iterator[Setting]:
    """Read the collector for ``tracing.endpoint``; where it cannot be used here, ``warn`` is told why."""
    variable = next((name for name in _COLLECTORS if environment.get(name)), None)
    if variable is None:
        return
    value = environment[variable]
    try:
        option.convert(value, text=True)
    except msgspec.ValidationError:
        warn(f"{variable}: {value!r} is no address of a collector for OTLP/gRPC; nothing is traced to it")
        return
    if not all(_is_installed(name) for name in _PACKAGES):
        warn(f"{variable}: needs OpenTelemetry (pip install 'limner[tracing]'); nothing is traced")
        return
    yield Setting(key=ENDPOINT, value=value, origin=variable, text=True)


def switched_off(environment: Mapping[str, str]) -> Iterator[Setting]:
    """Read that there are to be no traces, wherever a collector was named."""
    for variable, off in (("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")):
        if environment.get(variable, "").strip().lower() == off:
            yield Setting(key=ENDPOINT, value="", origin=variable, text=True)


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
