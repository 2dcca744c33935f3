"""What crowds and a replica's end cost the callers of the proxy, who do not retry themselves."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from limner.v1.portrait_pb2 import PortraitSpec
from limner.v1.portrait_service_pb2 import GenerateRequest, GenerateResponse
from limner.v1.portrait_service_pb2_grpc import PortraitServiceStub

from tests.gateway.conftest import Gateway, open_gateway
from tests.gateway.rest import call

CALLERS = 24


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway of which the test may break things."""
    with open_gateway(tmp_path) as gateway:
        yield gateway


def generations(channel: grpc.Channel, threads: ThreadPoolExecutor) -> list[Future[GenerateResponse]]:
    """Begin calls about many references; each takes a second."""
    portraits = PortraitServiceStub(channel)
    request = GenerateRequest(portrait=PortraitSpec(prompt="a SLOW sailor", steps=50))
    digests = [hashlib.sha256(bytes([number])).hexdigest() for number in range(CALLERS)]
    return [
        threads.submit(portraits.Generate, request, metadata=[("x-limner-reference", digest)], timeout=60)
        for digest in digests
    ]


def until_both_work(gateway: Gateway) -> None:
    for server in gateway.servers:
        server.until(lambda server=server: server.in_flight() >= 4)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "drained"])
def test_no_call_is_lost(fleet: Gateway, number: int) -> None:
    with grpc.insecure_channel(fleet.envoy.target) as channel, ThreadPoolExecutor(2 * CALLERS) as threads:
        calls = generations(channel, threads)
        until_both_work(fleet)
        fleet.servers[0].process.send_signal(number)
        calls += generations(channel, threads)
        assert [len(one.result().images) for one in calls] == [1] * 2 * CALLERS


def test_a_reference_that_everybody_wants_does_not_fill_its_replica(fleet: Gateway) -> None:
    """hash_balance_factor 150: of two replicas one has at most three quarters, give or take the call that decides."""
    request = GenerateRequest(portrait=PortraitSpec(prompt="a SLOW sailor", steps=100))
    metadata = [("x-limner-reference", hashlib.sha256(b"everybody").hexdigest())]
    with grpc.insecure_channel(fleet.envoy.target) as channel, ThreadPoolExecutor(CALLERS) as threads:
        generate = PortraitServiceStub(channel).Generate
        # Envoy counts a call once it is on a connection, so it must have one to each: some calls about others.
        for number in range(24):
            quick = GenerateRequest(portrait=PortraitSpec(prompt="a sailor", steps=1))
            other = hashlib.sha256(bytes([number])).hexdigest()
            generate(quick, metadata=[("x-limner-reference", other)], timeout=60)
        calls = [threads.submit(generate, request, metadata=metadata, timeout=60) for _ in range(CALLERS)]
        first, second = fleet.servers
        first.until(lambda: first.in_flight() + second.in_flight() == CALLERS)
        most = max(first.in_flight(), second.in_flight())
        # Most go where the reference lives; the counts may be of different moments, but no call ends within them.
        assert CALLERS * 0.7 < most <= CALLERS * 0.75 + 1
        assert [len(one.result().images) for one in calls] == [1] * CALLERS


def test_a_replica_that_is_gone_leaves_and_with_the_last_one_the_service(fleet: Gateway) -> None:
    first, second = fleet.servers
    (gone, stays) = (server.told()["grpc"][0] for server in fleet.servers)
    first.process.kill()
    first.process.wait()
    second.until(lambda: fleet.envoy.healthy() == {stays})
    assert gone != stays
    assert call(fleet.envoy.target, "GET", "/v1/limits").status == 200
    second.process.kill()
    second.process.wait()
    answer = call(fleet.envoy.target, "GET", "/v1/limits")
    assert answer.status == 503
    told: Any = answer.json()
    assert told["code"] == 14
