"""Each refusal becomes one typed error that carries all that the server said."""

import grpc
import pytest
from limner_client import errors
from limner_client.effects import Failure
from limner_client.wire import decode_failure

from tests.client.fakes import Refusal

CODE = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (CODE.INVALID_ARGUMENT, "INVALID_FIELD", errors.InvalidRequest),
        (CODE.INVALID_ARGUMENT, "INVALID_IMAGE", errors.InvalidRequest),
        (CODE.INVALID_ARGUMENT, "IDEMPOTENCY_CONFLICT", errors.InvalidRequest),
        (CODE.NOT_FOUND, "MODEL_NOT_FOUND", errors.ModelNotFound),
        (CODE.RESOURCE_EXHAUSTED, "OVERLOADED", errors.Overloaded),
        (CODE.RESOURCE_EXHAUSTED, "DEADLINE_INFEASIBLE", errors.DeadlineInfeasible),
        (CODE.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", errors.DeadlineExceeded),
        (CODE.INTERNAL, "NUMERICAL_FAILURE", errors.GenerationFailed),
        (CODE.INTERNAL, "POISON", errors.GenerationFailed),
        (CODE.INTERNAL, "INTERNAL", errors.ServerFault),
        (CODE.INTERNAL, "A_NEW_REASON", errors.ServerFault),
        (CODE.UNIMPLEMENTED, "", errors.LimnerError),
    ],
)
def test_types(call, fake, code, reason, kind):
    fake.refusals.append(
        Refusal(code, reason, message="no", metadata={"task_id": "t-1", "request_id": "r-1"})
    )
    with pytest.raises(errors.LimnerError) as caught:
        call("generate", "a sailor")
    error = caught.value
    assert type(error) is kind
    assert (error.code, error.reason, error.message) == (code.name, reason or code.name, "no")
    if reason:
        assert (error.task_id, error.request_id) == ("t-1", "r-1")


def test_every_reason_of_the_proto_has_a_type():
    from limner.v1 import error_reason_pb2
    from limner_client.wire.failures import _BY_REASON

    reasons = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118
    assert reasons - {"UNSPECIFIED"} == set(_BY_REASON)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(None, errors.Unavailable), (b"", errors.Unavailable), (b"not a status", errors.ServerFault)],
)
def test_a_reset_is_told_from_a_servers_own_fault_by_its_lack_of_details(status, kind):
    error = decode_failure(Failure(code="INTERNAL", details="reset", status=status, request_id="r-1"))
    assert type(error) is kind
    assert (error.code, error.reason, error.request_id) == ("INTERNAL", "INTERNAL", "r-1")


def test_violations_name_each_field(call, fake):
    fake.refusals.append(
        Refusal(
            CODE.INVALID_ARGUMENT,
            "INVALID_FIELD",
            violations=(("portrait.steps", "is 0; the limit is 1 to 100"), ("portrait.seed", "is -1")),
        )
    )
    with pytest.raises(errors.InvalidRequest) as caught:
        call("generate", "a sailor")
    assert [violation.field for violation in caught.value.violations] == ["portrait.steps", "portrait.seed"]
    assert caught.value.violations[0].description == "is 0; the limit is 1 to 100"


@pytest.mark.parametrize("status", [None, b"\xff\xff rubbish"])
def test_unreadable_details_leave_the_code(status):
    error = decode_failure(Failure(code="UNAVAILABLE", details="", status=status, request_id="r"))
    assert isinstance(error, errors.Unavailable)
    assert (error.message, error.reason, error.request_id) == ("UNAVAILABLE", "UNAVAILABLE", "r")


@pytest.mark.parametrize("settings", [{"sampler": "plms"}, {"format": "gif"}, {"steps": 2**40}])
def test_what_the_message_cannot_hold_is_refused_here(call, fake, settings):
    with pytest.raises(ValueError, match=r"there are|range"):
        call("generate", "a sailor", **settings)
    assert not fake.calls


def test_an_unknown_setting_is_a_type_error(call, fake):
    with pytest.raises(TypeError, match="stepz"):
        call("generate", "a sailor", stepz=3)
