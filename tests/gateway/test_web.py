"""gRPC-Web through the shipped Envoy configuration, and what browsers ask before it."""

from __future__ import annotations

import io

import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from limner.v1.portrait_pb2 import PortraitSpec
from limner.v1.portrait_service_pb2 import (
    GenerateRequest,
    GenerateResponse,
    GenerateStreamRequest,
    GenerateStreamResponse,
)
from PIL import Image

from tests.gateway.conftest import Gateway
from tests.gateway.rest import call
from tests.gateway.web import web_call

GENERATE = "/limner.v1.PortraitService/Generate"
STREAM = "/limner.v1.PortraitService/GenerateStream"
PAGE = "http://localhost:5173"


@pytest.mark.parametrize("text", [False, True], ids=["binary", "text"])
def test_a_portrait(gateway: Gateway, picture: bytes, text: bool) -> None:
    spec = PortraitSpec(prompt="a sailor", reference_image=picture, seed=7)
    answer = web_call(gateway.envoy.target, GENERATE, GenerateRequest(portrait=spec), text=text, origin=PAGE)
    assert (answer.http_status, answer.status) == (200, 0)
    (message,) = answer.messages
    image = GenerateResponse.FromString(message).images[0]
    assert Image.open(io.BytesIO(image.data)).getpixel((0, 0)) == (7, 7, 7)
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "grpc-status-details-bin" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize("text", [False, True], ids=["binary", "text"])
def test_a_stream(gateway: Gateway, text: bool) -> None:
    spec = PortraitSpec(prompt="a sailor", seed=7, steps=3)
    answer = web_call(gateway.envoy.target, STREAM, GenerateStreamRequest(portrait=spec), text=text)
    assert answer.status == 0
    events = [GenerateStreamResponse.FromString(message) for message in answer.messages]
    assert [one.progress.step for one in events if one.WhichOneof("event") == "progress"] == [1, 2, 3]
    (image,) = (one.image for one in events if one.WhichOneof("event") == "image")
    assert Image.open(io.BytesIO(image.data)).getpixel((0, 0)) == (7, 7, 7)
    assert events[-1].WhichOneof("event") == "completed"


def test_errors_keep_their_details(gateway: Gateway) -> None:
    request = GenerateRequest(portrait=PortraitSpec(prompt="a sailor", width=7))
    answer = web_call(gateway.envoy.target, GENERATE, request, x_request_id="mine")
    assert (answer.http_status, answer.status, answer.messages) == (200, 3, [])
    info, fields = ErrorInfo(), BadRequest()
    first, second = Status.FromString(answer.details).details
    assert first.Unpack(info)
    assert second.Unpack(fields)
    assert info.reason == "INVALID_FIELD"
    assert [one.field for one in fields.field_violations] == ["portrait.width"]
    assert answer.trailers["x-request-id"] == "mine"


def test_a_page_is_told_that_it_may_call(gateway: Gateway) -> None:
    asks = {
        "access_control_request_method": "POST",
        "access_control_request_headers": "x-grpc-web,x-limner-reference",
    }
    for path in (GENERATE, "/v1/portraits:generate"):
        answer = call(gateway.envoy.target, "OPTIONS", path, origin=PAGE, **asks)
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert {"x-grpc-web", "x-limner-reference"} <= set(
            answer.headers["access-control-allow-headers"].replace(" ", "").split(",")
        )


def test_a_page_may_read_json(gateway: Gateway) -> None:
    answer = call(gateway.envoy.target, "GET", "/v1/limits", origin=PAGE)
    assert answer.headers["access-control-allow-origin"] == PAGE


def test_a_page_of_somebody_else_is_not(gateway: Gateway) -> None:
    answer = call(
        gateway.envoy.target,
        "OPTIONS",
        GENERATE,
        origin="https://evil.example",
        access_control_request_method="POST",
    )
    assert "access-control-allow-origin" not in answer.headers
