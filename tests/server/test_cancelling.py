"""Callers that leave: what they had is freed, and nothing of it stays."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from limner.v1.portrait_pb2 import PortraitSpec
from limner.v1.portrait_service_pb2 import GenerateRequest, GenerateStreamRequest

from server.config.options import AdmissionOptions
from server.deadlines import is_late
from tests.server.answers import refused
from tests.server.imaging.pictures import file_of, scenery
from tests.server.running import Serving, run_server, until, until_held

HELD = PortraitSpec(prompt="HOLD")
CALLS = 10_000
AT_ONCE = 200


async def cancelled(call: Any) -> None:
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def nothing_left(serving: Serving) -> None:
    """Wait until every trace of a call is gone; the test's timeout says when it never will be."""
    app = serving.app
    await until(lambda: not (app.engines.default.in_flight or app.admission.in_flight or app.gate.in_flight))


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_cancelled_call_leaves_the_engine(serving: Serving, streaming: bool) -> None:
    call = (
        serving.portraits.GenerateStream(GenerateStreamRequest(portrait=HELD))
        if streaming
        else serving.portraits.Generate(GenerateRequest(portrait=HELD))
    )
    reading = asyncio.create_task(call.read() if streaming else asyncio.wait_for(asyncio.shield(call), 60))
    await serving.script.until(lambda: len(serving.script.held) == 1)
    call.cancel()
    await asyncio.wait([reading])
    await serving.script.until(lambda: len(serving.script.cancelled) == 1)
    await nothing_left(serving)
    assert serving.lines("call")[0]["code"] == "CANCELLED"


async def test_a_deadline_that_passes_frees_the_engine(serving: Serving) -> None:
    call, _ = await until_held(
        serving, lambda timeout: serving.portraits.Generate(GenerateRequest(portrait=HELD), timeout=timeout)
    )
    told = await refused(call)
    assert told.code == "DEADLINE_EXCEEDED"
    await serving.script.until(lambda: serving.script.held <= set(serving.script.cancelled))
    await nothing_left(serving)
    assert {line["code"] for line in serving.lines("call")} == {"DEADLINE_EXCEEDED"}
    assert cancelled_in(serving) == {}


def cancelled_in(serving: Serving) -> dict[str, float]:
    """Return what ``limner_requests_cancelled_total`` counts, by phase."""
    samples = (
        sample
        for family in serving.app.metrics.registry.collect()
        for sample in family.samples
        if sample.name == "limner_requests_cancelled_total"
    )
    return {sample.labels["phase"]: sample.value for sample in samples if sample.value}


@pytest.mark.parametrize("phase", ["queued", "decoding", "encoding_output"])
async def test_a_cancelled_call_is_counted_where_it_was(
    serving: Serving, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding = asyncio.Event()

    async def hold(*_: object, **__: object) -> bytes:
        encoding.set()
        await asyncio.Event().wait()
        raise AssertionError

    serving.script.hold_decodes = phase == "decoding"
    monkeypatch.setattr(serving.app._encoding, "run", hold)
    spec = HELD if phase == "queued" else PortraitSpec(prompt="a sailor")
    call = serving.portraits.Generate(GenerateRequest(portrait=spec))
    if phase == "encoding_output":
        await encoding.wait()
    else:
        await until(
            lambda: [work.phase for work in serving.app.engines.default._ledger._works.values()] == [phase]
        )
    await cancelled(call)
    await nothing_left(serving)
    assert cancelled_in(serving) == {phase: 1}


def test_a_callers_clock_may_ring_first() -> None:
    # gRPC sends 1.234 s as 1.24 s, and the message takes its time.
    assert is_late(arrived=10.0, deadline=11.24, now=11.2)
    assert not is_late(arrived=10.0, deadline=11.24, now=11.1)
    assert is_late(arrived=10.0, deadline=131.0, now=130.0)
    assert not is_late(arrived=10.0, deadline=131.0, now=100.0)
    assert not is_late(arrived=10.0, deadline=None, now=100.0)


async def test_a_caller_that_leaves_during_the_encode_of_its_reference(serving: Serving) -> None:
    serving.script.hold_encodes = True
    spec = PortraitSpec(prompt="a sailor", reference_image=file_of(scenery(), "PNG"))
    call = serving.portraits.Generate(GenerateRequest(portrait=spec))
    await until(lambda: serving.app.engines.default.in_flight)
    await cancelled(call)
    await until(lambda: not serving.app.admission.in_flight)
    serving.script.release.set()
    await nothing_left(serving)


async def test_a_killed_client_frees_the_engine(serving: Serving) -> None:
    program = f"""
import grpc
from limner.v1 import portrait_service_pb2_grpc, portrait_service_pb2, portrait_pb2
stub = portrait_service_pb2_grpc.PortraitServiceStub(grpc.insecure_channel({serving.app.addresses[0]!r}))
stub.Generate(portrait_service_pb2.GenerateRequest(portrait=portrait_pb2.PortraitSpec(prompt="HOLD")))
"""
    client = subprocess.Popen(  # noqa: ASYNC220 - it starts in a moment
        [sys.executable, "-c", program]
    )
    try:
        await serving.script.until(lambda: len(serving.script.held) == 1)
    finally:
        client.kill()
        client.wait()
    await serving.script.until(lambda: len(serving.script.cancelled) == 1)
    await nothing_left(serving)


def traces() -> Counter[str]:
    gc.collect()
    kinds = Counter(type(thing).__name__ for thing in gc.get_objects())
    kept = (
        "Job",
        "Call",
        "Finishing",
        "Permit",
        "SharedGeneration",
        "Future",
        "Task",
        "async_generator",
        "coroutine",
    )
    return Counter({kind: kinds[kind] for kind in kept}) + Counter(
        tasks=len(asyncio.all_tasks()), files=len(list(Path("/proc/self/fd").iterdir()))
    )


async def cancel_many(serving: Serving, count: int) -> None:
    """Cancel calls in batches, when half of a batch is in the engine and the rest on its way or not yet sent."""
    submitted = serving.script.submitted
    for batch in range(count // AT_ONCE):
        calls: list[Any] = []
        for number in range(AT_ONCE):
            # Every second pair of calls shares an idempotency key.
            key = f"{batch}-{number // 2}" if number % 4 < 2 else ""
            if number % 2:
                request = GenerateStreamRequest(portrait=HELD, idempotency_key=key)
                calls.append(serving.portraits.GenerateStream(request))
            else:
                calls.append(serving.portraits.Generate(GenerateRequest(portrait=HELD, idempotency_key=key)))
        wanted = len(submitted) + AT_ONCE // 2
        await serving.script.until(lambda wanted=wanted: len(submitted) >= wanted)
        for call in calls:
            call.cancel()
        await nothing_left(serving)


async def settled(serving: Serving) -> None:
    await nothing_left(serving)
    serving.logs.clear()
    for _ in range(200):
        await asyncio.sleep(0)


@pytest.mark.timeout(300)
async def test_10_000_cancelled_calls_leave_nothing() -> None:
    async with run_server(admission=AdmissionOptions(max_requests_in_flight=AT_ONCE)) as serving:
        await cancel_many(serving, 2 * AT_ONCE)
        await settled(serving)
        before = traces()
        await cancel_many(serving, CALLS)
        # gRPC's own threads end the last calls when they get to run; what leaks stays however long one waits.
        for _ in range(100):
            await settled(serving)
            after = traces()
            if all(count <= before[kind] + 5 for kind, count in after.items()):
                break
            await asyncio.sleep(0.1)
        print(f"in the engine: {len(serving.script.submitted)}\nbefore {dict(before)}\nafter  {dict(after)}")
        assert serving.script.held <= set(serving.script.cancelled)
        for kind, count in after.items():
            assert count <= before[kind] + 5, (kind, before, after)
        # And it still serves.
        await serving.portraits.Generate(GenerateRequest(portrait=PortraitSpec(prompt="a sailor")))
