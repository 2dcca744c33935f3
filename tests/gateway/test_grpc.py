"""gRPC through the shipped Envoy configuration."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from limner.v1.portrait_pb2 import CACHE_OUTCOME_HIT, PortraitSpec
from limner.v1.portrait_service_pb2 import GenerateRequest, GenerateStreamRequest
from limner.v1.portrait_service_pb2_grpc import PortraitServiceStub
from PIL import Image

from tests.gateway.conftest import Gateway
from tests.server.answers import refusal_of
from tests.waiting import until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def channel(gateway: Gateway) -> Iterator[grpc.Channel]:
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(gateway.envoy.target, options=options) as channel:
        yield channel


def test_a_portrait_and_its_stream_pass(channel: grpc.Channel) -> None:
    portraits = PortraitServiceStub(channel)
    spec = PortraitSpec(prompt="a sailor", seed=7)
    answer = portraits.Generate(GenerateRequest(portrait=spec), timeout=60)
    events = list(portraits.GenerateStream(GenerateStreamRequest(portrait=spec), timeout=60))
    assert events[-1].WhichOneof("event") == "completed"
    images = [event.image for event in events if event.WhichOneof("event") == "image"]
    for image in (*answer.images, *images):
        assert Image.open(io.BytesIO(image.data)).getpixel((0, 0)) == (7, 7, 7)
    assert len(answer.images) == len(images) == 1


@pytest.mark.parametrize("person", range(12))
def test_all_requests_of_a_reference_land_on_one_replica(
    channel: grpc.Channel, picture: bytes, person: int
) -> None:
    portraits = PortraitServiceStub(channel)
    image = picture + bytes([person])  # after the end of a PNG: the same picture, another digest
    metadata = [("x-limner-reference", hashlib.sha256(image).hexdigest())]
    outcomes = [
        portraits.Generate(
            GenerateRequest(portrait=PortraitSpec(prompt="a sailor", reference_image=image)),
            metadata=metadata,
            timeout=60,
        ).summary.reference.cache_outcome
        for _ in range(4)
    ]
    assert outcomes[1:] == [CACHE_OUTCOME_HIT] * 3


def test_references_are_spread_over_the_replicas(
    channel: grpc.Channel, gateway: Gateway, picture: bytes
) -> None:
    portraits = PortraitServiceStub(channel)
    digests = [hashlib.sha256(picture + bytes([255, n])).hexdigest() for n in range(16)]
    spec = PortraitSpec(prompt="a sailor")
    for digest in digests:
        portraits.Generate(
            GenerateRequest(portrait=spec), metadata=[("x-limner-reference", digest)], timeout=60
        )
    servers = {server.told()["grpc"][0] for server in gateway.servers}
    until(lambda: {line["upstream"] for line in gateway.envoy.access_log()} == servers)


def test_errors_keep_their_details(channel: grpc.Channel) -> None:
    request = GenerateRequest(portrait=PortraitSpec(prompt="a sailor", steps=0, width=7))
    with pytest.raises(grpc.RpcError) as refused:
        PortraitServiceStub(channel).Generate(request, metadata=[("x-request-id", "mine")], timeout=60)
    refusal = refusal_of(refused.value)
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert {"portrait.steps", "portrait.width"} <= set(refusal.violations)
    assert refusal.trailing["x-request-id"] == "mine"


def test_a_message_that_is_too_long_is_refused_with_a_status(channel: grpc.Channel, picture: bytes) -> None:
    """Just above limits.max_image_bytes by the server, by field; above limits.max_message_bytes by gRPC."""
    image = picture + bytes(16 * 2**20)
    for spec, code, fields in (
        (
            PortraitSpec(prompt="a sailor", reference_image=image),
            "INVALID_ARGUMENT",
            {"portrait.reference_image"},
        ),
        (
            PortraitSpec(prompt="a sailor", reference_image=image + bytes(49 * 2**20)),
            "RESOURCE_EXHAUSTED",
            set(),
        ),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            PortraitServiceStub(channel).Generate(GenerateRequest(portrait=spec), timeout=60)
        refusal = refusal_of(refused.value)
        assert (refusal.code, set(refusal.violations)) == (code, fields)


def test_health_is_asked_through_the_proxy(channel: grpc.Channel) -> None:
    answer = HealthStub(channel).Check(HealthCheckRequest(service="readiness"), timeout=60)
    assert answer.status == HealthCheckResponse.SERVING


@pytest.mark.parametrize("method", ["/limner.v1.PortraitService/Paint", "/nobody.Service/Method"])
def test_a_method_that_is_none_is_unimplemented(channel: grpc.Channel, method: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(method)(b"", timeout=60)
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_the_access_log_has_request_id_and_trace_id(channel: grpc.Channel, gateway: Gateway) -> None:
    metadata = [("x-request-id", "traced"), ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01")]
    PortraitServiceStub(channel).Generate(
        GenerateRequest(portrait=PortraitSpec(prompt="a sailor")), metadata=metadata, timeout=60
    )

    def lines() -> list[dict[str, Any]]:
        return [line for line in gateway.envoy.access_log() if line["request_id"] == "traced"]

    until(lines)
    (line,) = lines()
    assert line["trace_id"] == TRACE
    assert line["path"] == "/limner.v1.PortraitService/Generate"
    assert line["grpc_status"] == "OK"
