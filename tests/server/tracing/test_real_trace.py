"""One portrait of a program that traces, its server and its engine, as the collector sees it."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
from limner_client import Client
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from tests.server.imaging.pictures import file_of, scenery
from tests.server.processes import process
from tests.server.tracing.sink import attributes, sink
from tests.server.tracing.test_traces import GENERATE, STAGES
from tests.tinymodels import build_tiny_model

OPENMETRICS = "application/openmetrics-text"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "reference.png"
    path.write_bytes(file_of(scenery(), "PNG"))
    return path


def test_a_trace_holds_all_stages_under_the_callers_id(tmp_path, picture):
    build_tiny_model(tmp_path / "model")
    flags = ["--model", str(tmp_path / "model"), "--engine-threads", "1", "--engine-backend", "torch"]
    tracer = TracerProvider().get_tracer("a program")
    with sink() as collector:
        flags += ["--tracing-endpoint", collector.endpoint, "--log-format", "json"]
        with process(tmp_path, *flags, module="server") as server:
            server.until_ready()
            with Client(server.told()["grpc"][0]) as client, tracer.start_as_current_span("a shop") as span:
                portrait = client.generate("a sailor", reference=picture, steps=5, seed=1)
                client.generate("a sailor", reference=picture, steps=5, seed=2)
            asked = urllib.request.Request(server.told()["metrics"], headers={"Accept": OPENMETRICS})
            page = urllib.request.urlopen(asked).read().decode()
            assert server.stop() == 0
        caller = span.get_span_context()
        trace_id = trace.format_trace_id(caller.trace_id)
        # The client sends a digest, uploads the picture that is unknown, and sends the digest again.
        spans = collector.trace(trace_id, count=4)
        ticks = {each.span_id for each in collector.spans if each.name == "limner.tick"}
    calls = {attributes(each)["rpc.response.status_code"]: each for each in spans[GENERATE]}
    assert sorted(calls) == ["NOT_FOUND", "OK"]
    assert {each.parent_span_id.hex() for each in spans[GENERATE]} == {trace.format_span_id(caller.span_id)}
    assert set(STAGES) < set(spans)
    (call,) = [each for each in spans[GENERATE] if attributes(each).get("limner.task_id") == portrait.task_id]
    stages = {
        name: each for name, many in spans.items() for each in many if each.parent_span_id == call.span_id
    }
    # In order, without gaps where the engine works, and as long as the answer says.
    order = ["admit", "reference", "queue", "encode_prompt", "denoise", "decode_latents"]
    began = [stages[f"limner.{name}"].start_time_unix_nano for name in order]
    assert began == sorted(began)
    denoise = stages["limner.denoise"]
    seconds = (denoise.end_time_unix_nano - denoise.start_time_unix_nano) / 1e9
    assert seconds == pytest.approx(portrait.timings.denoise_seconds, abs=1e-6)
    assert attributes(denoise)["limner.ticks"] == len(denoise.events) == 5
    assert {link.span_id for link in denoise.links} <= ticks
    assert attributes(stages["limner.reference"])["limner.cache"] == "hit"
    lines = {line["request_id"]: line for line in server.lines("call")}
    line = lines[attributes(call)["limner.request_id"]]
    assert (line["trace_id"], line["span_id"]) == (trace_id, call.span_id.hex())
    assert f'trace_id="{trace_id}"' in page
