"""A client that protoc-gen-es generated, on Node.js over gRPC, speaks with the server."""

import hashlib

from tests.interop.conftest import REFERENCE

DIGEST = hashlib.sha256(REFERENCE.read_bytes()).hexdigest()


def test_generate(javascript):
    answer = javascript("generate", str(REFERENCE))
    image = answer["image"]
    assert image["signature"] is True
    assert [image["width"], image["height"]] == image["claimed"]
    assert image["bytes"] > 500
    assert answer["digests"] == [DIGEST, DIGEST]
    assert answer["summary"] | {"totalSeconds": 0} == {
        "seed": "7", "steps": 4, "cacheOutcome": "HIT", "digest": DIGEST, "totalSeconds": 0,
    }  # fmt: skip
    assert answer["taskId"]


def test_stream(javascript):
    answer = javascript("stream", str(REFERENCE))
    events = answer["events"]
    assert (events[0], events[-1], events.count("image")) == ("queued", "completed", 2)
    assert {"progress", "preview"} <= set(events)
    assert answer["image"]["signature"] is True
    assert answer["summary"]["digest"] == DIGEST


def test_rich_errors_are_decoded(javascript):
    answer = javascript("invalid")
    assert (answer["code"], answer["domain"], answer["reason"]) == (
        "InvalidArgument", "limner.v1", "INVALID_FIELD",
    )  # fmt: skip
    assert {violation["field"] for violation in answer["violations"]} == {"portrait.prompt", "portrait.steps"}


def test_an_unknown_digest_is_not_found(javascript):
    answer = javascript("digest")
    assert (answer["code"], answer["reason"]) == ("NotFound", "REFERENCE_NOT_FOUND")
    assert answer["metadata"]["digest"] == "0" * 64
