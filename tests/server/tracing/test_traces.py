"""What a collector is told of calls, with a fake engine."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from limner.v1.portrait_pb2 import PortraitSpec, WeightedReference
from limner.v1.portrait_service_pb2 import GenerateRequest
from limner.v1.reference_service_pb2 import UploadReferenceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from prometheus_client.openmetrics.exposition import generate_latest

from engine.protocol.messages import FailureReason
from server.__main__ import BAD_CONFIGURATION
from server.config.optional import TracingOptions
from server.config.options import LogOptions
from server.tracing.job import MAX_TICKS
from server.tracing.otel import OtelTracing
from tests.server.answers import refused
from tests.server.fake_engine import Script
from tests.server.imaging.pictures import file_of, scenery
from tests.server.running import Serving, run_server
from tests.server.tracing.sink import Sink, attributes, sink

ROOT = Path(__file__).parents[3]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CONTEXT = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)
PNG = file_of(scenery(), "PNG")
GENERATE = "limner.v1.PortraitService/Generate"
STAGES = (
    "limner.admit",
    "limner.reference",
    "limner.decode_input",
    "limner.encode_reference",
    "limner.queue",
    "limner.encode_prompt",
    "limner.denoise",
    "limner.decode_latents",
    "limner.encode_output",
)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    with sink() as running:
        yield running


@asynccontextmanager
async def traced(collector: Sink, script: Script | None = None, **changes: Any) -> AsyncIterator[Serving]:
    async with run_server(script, tracing=TracingOptions(endpoint=collector.endpoint), **changes) as serving:
        yield serving


async def told(collector: Sink, count: int = 1) -> dict[str, list[Span]]:
    return await asyncio.to_thread(collector.trace, TRACE, count)


def request(prompt: str = "a secret sailor", **fields: Any) -> GenerateRequest:
    return GenerateRequest(portrait=PortraitSpec(prompt=prompt, steps=3, **fields))


async def test_a_portrait_is_told_stage_by_stage(collector):
    async with traced(collector) as serving:
        answer = await serving.portraits.Generate(request(reference_image=PNG), metadata=CONTEXT)
        spans = await told(collector)
        (call,) = spans.pop(GENERATE)
        assert (call.kind, call.parent_span_id.hex()) == (Span.SPAN_KIND_SERVER, PARENT)
        assert sorted(spans) == sorted(STAGES)
        by_id = {span.span_id: span for each in spans.values() for span in each} | {call.span_id: call}
        assert len(by_id) == 1 + len(STAGES)
        for name in ("decode_input", "encode_reference"):
            assert by_id[spans[f"limner.{name}"][0].parent_span_id].name == "limner.reference"
        for name, (span,) in spans.items():
            if name not in ("limner.decode_input", "limner.encode_reference"):
                assert span.parent_span_id == call.span_id
            assert call.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
            assert span.end_time_unix_nano <= call.end_time_unix_nano
            assert span.status.code == Status.STATUS_CODE_UNSET
        facts = attributes(call)
        assert facts["rpc.system.name"] == "grpc"
        assert facts["rpc.method"] == GENERATE
        assert facts["rpc.response.status_code"] == "OK"
        assert facts["network.peer.address"] == "127.0.0.1"
        assert facts["user_agent.original"].startswith("grpc-python-asyncio/")
        assert facts["limner.task_id"] == answer.task_id
        assert facts["limner.cache"] == "miss"
        assert facts["limner.steps"] == 3
        assert attributes(spans["limner.reference"][0])["limner.cache"] == "miss"
        assert collector.resources[0]["service.name"] == "limner"


async def test_stages_last_as_long_as_the_engine_says(collector):
    async with traced(collector) as serving:
        await serving.portraits.Generate(request("a SLOW sailor"), metadata=CONTEXT)
        spans = await told(collector)
    seconds = {
        name: (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9 for name, (span,) in spans.items()
    }
    # The fake engine's Finished: it denoises for 60 ms, and tells 30.
    assert seconds["limner.encode_prompt"] == pytest.approx(0.002, abs=1e-6)
    assert seconds["limner.denoise"] == pytest.approx(0.03, abs=1e-6)
    assert seconds["limner.decode_latents"] == pytest.approx(0.004, abs=1e-6)
    (queue,), (prompt,) = spans["limner.queue"], spans["limner.encode_prompt"]
    assert queue.end_time_unix_nano == prompt.start_time_unix_nano


async def test_ticks_are_events_and_links_of_the_denoising(collector):
    async with traced(collector) as serving:
        await asyncio.gather(
            *(serving.portraits.Generate(request(prompt), metadata=CONTEXT) for prompt in "ab")
        )
        spans = await told(collector, 2)
        everything = collector.spans
    ticks = {span.span_id: span for span in everything if span.name == "limner.tick"}
    assert len(ticks) == serving.script.ticks == 6
    assert all(span.trace_id.hex() != TRACE and not span.parent_span_id for span in ticks.values())
    for denoise in spans["limner.denoise"]:
        assert attributes(denoise)["limner.ticks"] == 3
        assert [event.name for event in denoise.events] == ["limner.tick"] * 3
        assert attributes(denoise.events[0])["limner.tick.bucket"] == 2
        assert {link.span_id for link in denoise.links} < ticks.keys()
        assert len(denoise.links) == 3
        for event in denoise.events:
            assert denoise.start_time_unix_nano <= event.time_unix_nano <= denoise.end_time_unix_nano


async def test_the_ticks_of_a_long_portrait_are_counted_but_not_all_told(collector):
    async with traced(collector) as serving:
        steps = MAX_TICKS + 6
        asked = GenerateRequest(portrait=PortraitSpec(prompt="a", steps=steps))
        await serving.portraits.Generate(asked, metadata=CONTEXT)
        (denoise,) = (await told(collector))["limner.denoise"]
    assert attributes(denoise)["limner.ticks"] == steps
    assert len(denoise.events) == len(denoise.links) == MAX_TICKS
    assert (denoise.dropped_events_count, denoise.dropped_links_count) == (0, 0)


async def test_nothing_that_a_caller_wrote_or_drew_is_told(collector):
    async with traced(collector, log=LogOptions(prompts=True)) as serving:
        await serving.portraits.Generate(
            request(negative_prompt="a secret hat", reference_image=PNG), metadata=CONTEXT
        )
        wrong = GenerateRequest(portrait=PortraitSpec(prompt="secret\x00", steps=999))
        await refused(serving.portraits.Generate(wrong, metadata=CONTEXT))
        await told(collector, 2)
    assert serving.lines("call")[0]["prompt"] == "a secret sailor"
    assert not [span for span in collector.spans if b"secret" in span.SerializeToString()]
    assert not [span for span in collector.spans if PNG[:64] in span.SerializeToString()]


async def test_each_of_several_references_has_its_span(collector):
    other = file_of(scenery(width=80), "PNG")
    async with traced(collector) as serving:
        await serving.references.UploadReference(UploadReferenceRequest(image=PNG), metadata=CONTEXT)
        references = [WeightedReference(image=PNG), WeightedReference(image=other)]
        await serving.portraits.Generate(request(references=references), metadata=CONTEXT)
        spans = await told(collector, 2)
    told_of = {attributes(span)["limner.field"]: attributes(span) for span in spans["limner.reference"]}
    assert {field: each["limner.cache"] for field, each in told_of.items()} == {
        "image": "miss",
        "portrait.references[0].image": "hit",
        "portrait.references[1].image": "miss",
    }
    assert len(spans["limner.encode_reference"]) == 2


async def test_a_callers_fault_is_no_error_of_the_span(collector):
    async with traced(collector) as serving:
        await refused(serving.portraits.Generate(request(width=17), metadata=CONTEXT))
        (call,) = (await told(collector))[GENERATE]
    assert call.status.code == Status.STATUS_CODE_UNSET
    facts = attributes(call)
    assert facts["error.type"] == facts["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert facts["limner.reason"] == "INVALID_FIELD"


async def test_the_stage_that_failed_says_so(collector):
    async with traced(collector, Script(fail_with=FailureReason.NUMERICAL)) as serving:
        await refused(serving.portraits.Generate(request(), metadata=CONTEXT))
        spans = await told(collector)
    (call,), (queue,) = spans[GENERATE], spans["limner.queue"]
    assert (call.status.code, call.status.message) == (Status.STATUS_CODE_ERROR, "NUMERICAL_FAILURE")
    assert (queue.status.code, queue.status.message) == (Status.STATUS_CODE_ERROR, "numerical")
    assert "limner.denoise" not in spans


async def test_a_caller_who_leaves_ends_the_stage_that_ran(collector):
    async with traced(collector) as serving:
        call = serving.portraits.Generate(request("HOLD"), metadata=CONTEXT)
        await serving.script.until(lambda: serving.script.held)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        spans = await told(collector)
    (queue,) = spans["limner.queue"]
    assert queue.status.message == "left before its end"
    assert attributes(spans[GENERATE][0])["rpc.response.status_code"] == "CANCELLED"


async def test_each_life_of_a_replayed_job_is_told(collector):
    async with traced(collector) as serving:
        await refused(serving.portraits.Generate(request("DIE"), metadata=CONTEXT))
        spans = await told(collector)

    def lives(name: str) -> list[tuple[int, str]]:
        return [(attributes(span).get("limner.replay", 0), span.status.message) for span in spans[name]]

    assert lives("limner.denoise") == [(0, "the engine died"), (1, "the engine died")]
    assert lives("limner.queue") == [(0, ""), (1, ""), (2, "POISON")]


async def test_who_joins_a_generation_tells_of_his_call_alone(collector):
    async with traced(collector) as serving:
        asked = request("HOLD")
        asked.idempotency_key = "once"
        calls = [serving.portraits.Generate(asked, metadata=CONTEXT) for _ in range(2)]
        await serving.script.until(lambda: serving.script.held)
        serving.script.release.set()
        await asyncio.gather(*calls)
        spans = await told(collector, 2)
    assert len(spans["limner.denoise"]) == 1
    facts = [attributes(span) for span in spans[GENERATE]]
    assert sorted(each["limner.joined"] for each in facts) == [False, True]
    assert len({each["limner.task_id"] for each in facts}) == 1


async def test_latencies_have_exemplars(collector):
    async with traced(collector) as serving:
        await serving.portraits.Generate(request(reference_image=PNG), metadata=CONTEXT)
        await told(collector)
        page = generate_latest(serving.app.metrics.registry).decode()
    lines = [line for line in page.splitlines() if f'trace_id="{TRACE}"' in line]
    histograms = {line.split("_bucket{")[0] for line in lines}
    assert histograms == {
        "limner_request_seconds",
        "limner_stage_seconds",
        "limner_queue_wait_seconds",
        "grpc_server_handling_seconds",
    }
    stages = {line.split('stage="')[1].split('"')[0] for line in lines if 'stage="' in line}
    assert stages == {
        "decode_input",
        "encode_reference",
        "encode_prompt",
        "denoise",
        "decode_latents",
        "encode_output",
    }


async def test_a_caller_who_does_not_sample_is_not_told(collector):
    unsampled = (("traceparent", f"00-{TRACE}-{PARENT}-00"),)
    async with traced(collector) as serving:
        await serving.portraits.Generate(request("one"), metadata=unsampled)
        await serving.portraits.Generate(request("two"))
        await asyncio.to_thread(collector.until, lambda spans: any(span.name == GENERATE for span in spans))
        page = generate_latest(serving.app.metrics.registry).decode()
    (call,) = [span for span in collector.spans if span.name == GENERATE]
    assert call.trace_id.hex() != TRACE
    assert not call.parent_span_id
    assert TRACE not in page


async def test_a_context_that_is_none_begins_a_trace(collector):
    async with traced(collector) as serving:
        await serving.portraits.Generate(request(), metadata=(("traceparent", "00-nonsense"),))
        await asyncio.to_thread(collector.until, lambda spans: any(span.name == GENERATE for span in spans))
    assert not next(span for span in collector.spans if span.name == GENERATE).parent_span_id


async def test_what_is_left_is_sent_at_the_end(collector, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    async with traced(collector) as serving:
        await serving.portraits.Generate(request(), metadata=CONTEXT)
        assert collector.spans == []
    assert "limner.denoise" in collector.trace(TRACE)


@pytest.mark.parametrize("delay", ["1", "3600000"])
@pytest.mark.parametrize("is_gone", [True, False])
async def test_a_dead_collector_costs_nothing(collector, monkeypatch, delay, is_gone):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", delay)
    with sink() as gone:
        endpoint = gone.endpoint
    if not is_gone:
        collector.answers.clear()
        endpoint = collector.endpoint
    loop = asyncio.get_running_loop()
    async with run_server(tracing=TracingOptions(endpoint=endpoint)) as serving:
        for prompt in "abc":
            assert (await serving.portraits.Generate(request(prompt))).images
        began = loop.time()
    # The exporter itself would try for 10 s, and the processor wait for 30.
    assert loop.time() - began < 8


def run(program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)


def test_without_an_endpoint_opentelemetry_is_not_imported():
    program = """
import asyncio, sys
from limner.v1.portrait_pb2 import PortraitSpec
from limner.v1.portrait_service_pb2 import GenerateRequest
from tests.server.running import run_server

async def main():
    async with run_server() as serving:
        await serving.portraits.Generate(GenerateRequest(portrait=PortraitSpec(prompt="a")))
    print("loaded", *[name for name in sys.modules if name.startswith("opentelemetry")])

asyncio.run(main())
"""
    done = run(program)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "loaded"), done.stderr


def test_without_the_package_the_start_says_what_to_install():
    program = """
import sys
sys.modules["opentelemetry.sdk.trace"] = None
from server.__main__ import main
sys.exit(main(["--port", "0", "--metrics-port", "-1", "--tracing-endpoint", "http://localhost:4317"]))
"""
    done = run(program)
    assert done.returncode == BAD_CONFIGURATION
    assert "pip install 'limner[tracing]'" in done.stderr


def test_a_span_of_an_sdk_that_is_off_has_no_ids(monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    tracing = OtelTracing("http://localhost:4317", version="1")
    assert tracing.call("a", carrier={}, began=0.0, attributes={}).ids is None


def test_what_others_set_is_told_in_the_log_and_does_not_end_the_start():
    program = """
import os, sys
os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://collector:4318/v1/traces"
import server.serving
async def serve(config, launchers, log):
    return 0
server.serving.serve = serve
from server.__main__ import main
sys.exit(main([]))
"""
    done = run(program)
    assert done.returncode == 0, done.stderr
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in done.stdout + done.stderr


async def test_no_other_rpc_is_traced(collector):
    async with traced(collector) as serving:
        await serving.portraits.Generate(request(), metadata=CONTEXT)
        with pytest.raises(grpc.aio.AioRpcError):
            await serving.channel.unary_unary("/limner.v1.PortraitService/Paint")(b"")
        await told(collector)
    assert {span.name for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER} == {GENERATE}
