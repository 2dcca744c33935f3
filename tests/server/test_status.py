from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from limner.v1 import error_reason_pb2, portrait_pb2
from limner.v1.portrait_service_pb2 import GenerateRequest

from server import errors
from server.api.status import status_of
from server.api.wire import text_violation
from server.errors import Code, FieldViolation, LimnerError, Reason
from server.portraits.news import WarningCode
from server.portraits.prompts import seen_part
from server.portraits.request import Priority, Sampler
from server.references.record import ReferenceWarningCode

ROOT = Path(__file__).parents[2]
VIOLATION = FieldViolation(field="portrait.steps", problem="is 0", limit="the limit is 1 to 100")
EXAMPLES: list[LimnerError] = [
    errors.InvalidFieldsError([VIOLATION]),
    errors.InvalidImageError(VIOLATION),
    errors.ReferenceUnknownError({"digest": "0" * 64}),
    errors.ModelUnknownError("sdxl", ["fake"]),
    errors.IdempotencyConflictError(),
    errors.OverloadedError("requests in flight", limit=3, retry_after=0.5),
    errors.DeadlineInfeasibleError("too late", retry_after=1.5, predicted_seconds=4.2),
    errors.DeadlinePassedError("denoising"),
    errors.DrainingError(),
    errors.EngineUnavailableError("away"),
    errors.NumericalFailureError("t"),
    errors.PoisonError("t"),
    errors.InternalError(),
]


def test_reasons_are_the_protos() -> None:
    names = [
        name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name
    ]
    assert {reason.value for reason in Reason} == set(names) - {"UNSPECIFIED"}
    assert {example.reason for example in EXAMPLES} == set(Reason)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: error.reason.value)
def test_every_error_is_documented_as_it_is_sent(error: LimnerError) -> None:
    rows = [
        line.split("|")
        for line in (ROOT / "docs/errors.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    (row,) = [row for row in rows if row[1].strip() == f"`{error.reason.value}`"]
    status = status_of(error)
    assert row[2].strip() == f"`{status.code.name}`"
    packed = status_pb2.Status.FromString(status.details)
    assert packed.code == status.code.value[0]
    assert packed.message == status.text == str(error)
    kinds = [detail.type_url.rpartition(".")[2] for detail in packed.details]
    assert kinds == ["ErrorInfo", *re.findall(r"`(\w+)`", row[3])]


def test_the_documentation_has_no_other_errors() -> None:
    page = (ROOT / "docs/errors.md").read_text()
    assert set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE)) == {reason.value for reason in Reason}


def test_codes_are_grpcs() -> None:
    assert {code.value for code in Code} <= {code.name for code in grpc.StatusCode}


def test_the_details_fit_a_header_even_when_everything_is_wrong() -> None:
    violations = [
        FieldViolation(field=f"portrait.field_{n}", problem="p" * 60, limit="l" * 60) for n in range(20)
    ]
    status = status_of(errors.InvalidFieldsError(violations))
    assert len(status.text) + len(status.details) * 4 / 3 < 8000
    assert status.text.endswith("and 17 more")


@pytest.mark.parametrize(
    ("proto", "prefix", "names"),
    [
        (portrait_pb2.Sampler, "SAMPLER_", {sampler.name for sampler in Sampler}),
        (portrait_pb2.Priority, "PRIORITY_", {priority.name for priority in Priority}),
        (portrait_pb2.WarningCode, "WARNING_CODE_", {code.value for code in WarningCode}),
    ],
)
def test_enums_are_the_protos(proto: Any, prefix: str, names: set[str]) -> None:
    assert {name.removeprefix(prefix) for name in proto.DESCRIPTOR.values_by_name} - {"UNSPECIFIED"} == names


def test_every_warning_of_a_reference_is_one_of_a_portrait() -> None:
    assert {code.value for code in ReferenceWarningCode} <= {code.value for code in WarningCode}


def test_samplers_are_the_engines() -> None:
    from engine.samplers.registry import sampler_names

    assert {sampler.value for sampler in Sampler} == set(sampler_names())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x0a",
        b"\x0a\x05ab",
        b"\xff" * 20,
        b"\x0b\x0c",
        b"\x09",
        b"\x10\x01",
        b"\x7a\x01\xff",
        b"\x0d\x00",
    ],
)
def test_a_message_that_is_no_message_has_no_text_at_fault(data: bytes) -> None:
    assert text_violation(GenerateRequest.DESCRIPTOR, data) is None


@pytest.mark.parametrize(
    ("prompt", "dropped", "seen"),
    [
        ("a sailor", "", "a sailor"),
        ("a sailor ", "", "a sailor "),
        ("A Sailor, with   a Hat!", "with a hat !", "A Sailor,"),
        ("a sailor", "a sailor", ""),
        ("a sailor", "another", "a sailor"),
        ("or", "a sailor", "or"),
    ],
)
def test_the_part_of_a_prompt_that_was_seen(prompt: str, dropped: str, seen: str) -> None:
    assert seen_part(prompt, dropped) == seen
