"""JSON through the shipped Envoy configuration: every RPC of limner.v1 has a REST form."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import socket

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from PIL import Image

from server.config.options import LimitOptions
from tests.gateway.conftest import Gateway
from tests.gateway.rest import call
from tools.stubs import DESCRIPTORS

GENERATE = "/v1/portraits:generate"


def pixel(data: str) -> tuple[int, ...]:
    """Decode a picture as protobuf JSON has it, and give its first pixel."""
    value = Image.open(io.BytesIO(base64.b64decode(data))).getpixel((0, 0))
    assert isinstance(value, tuple)
    return value


def test_every_rpc_has_a_path() -> None:
    files = FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file
    methods = {
        f"{service.name}.{method.name}": method.options.Extensions[annotations_pb2.http].WhichOneof("pattern")
        for file in files
        for service in file.service
        for method in service.method
    }
    assert len(methods) == 7
    assert None not in methods.values(), methods


def test_a_portrait_by_picture(gateway: Gateway, picture: bytes) -> None:
    portrait = {"prompt": "a sailor", "referenceImage": base64.b64encode(picture).decode(), "seed": "7"}
    answer = call(gateway.envoy.target, "POST", GENERATE, {"portrait": portrait})
    assert answer.status == 200
    told = answer.json()
    assert pixel(told["images"][0]["data"]) == (7, 7, 7)
    # Zero is told too, not left out.
    assert told["images"][0]["index"] == 0
    assert told["summary"]["parameters"]["seed"] == "7"


def test_a_stream_is_one_event_a_line(gateway: Gateway) -> None:
    portrait = {"prompt": "a sailor", "seed": "7", "steps": 3}
    answer = call(gateway.envoy.target, "POST", "/v1/portraits:generateStream", {"portrait": portrait})
    assert answer.status == 200
    events = [json.loads(line) for line in answer.body.splitlines()]
    assert [event["progress"]["step"] for event in events if "progress" in event] == [1, 2, 3]
    assert [pixel(event["image"]["data"]) for event in events if "image" in event] == [(7, 7, 7)]
    assert "completed" in events[-1]


def test_a_reference_is_uploaded_used_asked_for_and_deleted(gateway: Gateway, picture: bytes) -> None:
    image = picture + b"json"
    digest = hashlib.sha256(image).hexdigest()
    target, hashed = gateway.envoy.target, {"x_limner_reference": digest}
    body = {"image": base64.b64encode(image).decode()}
    assert call(target, "POST", "/v1/references", body, **hashed).json()["reference"]["digest"] == digest
    assert call(target, "GET", f"/v1/references/{digest}", **hashed).json()["reference"]["width"] == 64
    used = call(
        target, "POST", GENERATE, {"portrait": {"prompt": "a sailor", "referenceDigest": digest}}, **hashed
    )
    assert used.json()["summary"]["reference"]["cacheOutcome"] == "CACHE_OUTCOME_HIT"
    assert call(target, "DELETE", f"/v1/references/{digest}", **hashed).json() == {}
    gone = call(target, "GET", f"/v1/references/{digest}", **hashed)
    assert gone.status == 404
    assert gone.json()["details"][0]["reason"] == "REFERENCE_NOT_FOUND"


def test_models_and_limits(gateway: Gateway) -> None:
    models = call(gateway.envoy.target, "GET", "/v1/models").json()["models"]
    assert [model["name"] for model in models] == ["fake"]
    limits = call(gateway.envoy.target, "GET", "/v1/limits").json()["limits"]
    assert limits["maxImageBytes"] == str(LimitOptions().max_image_bytes)


def test_a_refusal_names_its_fields(gateway: Gateway) -> None:
    portrait = {"prompt": "a sailor", "steps": 0, "width": 7}
    answer = call(gateway.envoy.target, "POST", GENERATE, {"portrait": portrait}, x_request_id="mine")
    assert answer.status == 400
    assert answer.headers["x-request-id"] == "mine"
    info, request = answer.json()["details"]
    assert info["reason"] == "INVALID_FIELD"
    assert {one["field"] for one in request["fieldViolations"]} == {"portrait.steps", "portrait.width"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"portrait": {"prompt": "a sailor", "steps": "many"}}', "portrait.steps"),
        (b'{"portrait": {"prompt": "a sailor", "sampler": "NO_SUCH"}}', "portrait.sampler"),
        (b'{"portrait": {"prompt": "a sailor", "referenceImage": "%%"}}', "portrait.reference_image"),
        (b'{"portrait": ', "Unexpected end of string"),
    ],
)
def test_what_is_no_request_is_refused_in_the_same_form(gateway: Gateway, body: bytes, said: str) -> None:
    answer = call(gateway.envoy.target, "POST", GENERATE, body, content_type="application/json")
    assert answer.status == 400
    assert answer.json()["code"] == 3
    assert said in answer.json()["message"]


@pytest.mark.parametrize("path", ["/", "/v1/nothing", "/v2/limits"])
def test_a_path_that_is_none_is_refused_in_the_same_form(gateway: Gateway, path: str) -> None:
    answer = call(gateway.envoy.target, "GET", path)
    assert answer.status == 404
    assert answer.json()["code"] == 5


def test_a_query_that_means_nothing_is_named(gateway: Gateway) -> None:
    answer = call(gateway.envoy.target, "GET", "/v1/limits?of=nothing")
    assert answer.status == 400
    assert '"of"' in answer.json()["message"]


def test_a_reference_of_the_limit_passes_and_a_longer_request_is_refused(gateway: Gateway) -> None:
    """A byte above the server's limit is the server's to refuse, by field; what JSON may not have at all, Envoy's."""
    target, most = gateway.envoy.target, LimitOptions().max_image_bytes
    for size, status, code, said in (
        (most, 400, 3, "portrait.reference_image: is no"),
        (most + 1, 400, 3, f"portrait.reference_image: has {most + 1} bytes; the limit is {most} bytes"),
        (most + 2**22, 413, 8, "24 MiB"),
    ):
        body = {"portrait": {"prompt": "a sailor", "referenceImage": base64.b64encode(bytes(size)).decode()}}
        answer = call(target, "POST", GENERATE, body)
        assert answer.status == status
        assert answer.json()["code"] == code
        assert said in answer.json()["message"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_what_a_page_may_send_unasked_generates_nothing(gateway: Gateway, kind: str) -> None:
    body = b'{"portrait": {"prompt": "a sailor"}}'
    answer = call(gateway.envoy.target, "POST", GENERATE, body, content_type=kind)
    assert answer.status == 415
    assert "application/json" in answer.json()["message"]
    assert (
        call(
            gateway.envoy.target, "POST", GENERATE, body, content_type="application/json; charset=utf-8"
        ).status
        == 200
    )


def test_a_stream_that_fails_says_so_in_its_trailers(gateway: Gateway) -> None:
    """Read from the socket, since http.client drops trailers."""
    host, _, port = gateway.envoy.target.rpartition(":")
    body = b'{"portrait": {"prompt": "a SLOW sailor", "steps": 100}}'
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(
            b"POST /v1/portraits:generateStream HTTP/1.1\r\nhost: limner\r\nconnection: close\r\n"
            b"grpc-timeout: 300m\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(body), body)
        )
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    events, _, trailers = answer.rpartition(b"\r\n0\r\n")
    assert b'"progress"' in events
    assert b'"completed"' not in events
    assert b"grpc-status: 4\r\n" in trailers


def test_a_deadline_is_kept_by_the_server(gateway: Gateway) -> None:
    body = {"portrait": {"prompt": "a SLOW sailor", "steps": 100}}
    answer = call(gateway.envoy.target, "POST", GENERATE, body, grpc_timeout="300m")
    assert answer.status == 504
    assert answer.json()["code"] == 4
