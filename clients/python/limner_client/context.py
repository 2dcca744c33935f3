"""The caller's trace, where it has one: its context travels in each call's metadata."""

import sys

from limner_client.effects import Metadata


def trace_context() -> Metadata:
    """Give the present span's context as OpenTelemetry's propagators write it, W3C's `traceparent` by default.

    A program that has not imported OpenTelemetry has no span, and this does not import it either.
    """
    if "opentelemetry.trace" not in sys.modules:
        return ()
    from opentelemetry import propagate

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return tuple((key.lower(), value) for key, value in carrier.items())
