"""The caller's trace travels with its calls."""

import subprocess
import sys

import pytest
from limner_client.context import trace_context
from limner_client.exchange import Exchange, Session
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

SPAN = NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1)))
TRACEPARENT = ("traceparent", f"00-{0xABC:032x}-{0xDEF:016x}-01")


def test_calls_carry_the_present_span():
    with trace.use_span(SPAN):
        call = Exchange(Session(tenant="shop"), timeout=1).call("/a", b"")
    assert TRACEPARENT in call.metadata
    assert ("x-limner-tenant", "shop") in call.metadata


def test_without_a_span_they_carry_nothing():
    assert trace_context() == ()


@pytest.mark.parametrize("program", ["pass", "trace_context()"])
def test_the_client_imports_no_opentelemetry(program):
    code = f"import sys; import limner_client; from limner_client.context import trace_context; {program}"
    code += "; print(*[name for name in sys.modules if name.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
