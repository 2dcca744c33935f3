"""Retries honour RetryInfo, stay inside the deadline and repeat the very same request."""

from random import Random

import grpc
import pytest
from limner_client import (
    DeadlineExceeded,
    DeadlineInfeasible,
    InvalidRequest,
    LimnerError,
    Overloaded,
    RetryPolicy,
    ServerFault,
    Unavailable,
)

from tests.client.fakes import Refusal

CODE = grpc.StatusCode


def overloaded(seconds: float | None) -> Refusal:
    return Refusal(CODE.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after=seconds)


@pytest.mark.parametrize("method", ["generate", "stream", "info"])
def test_a_refusal_is_retried_after_the_time_that_it_names(call, fake, time, method):
    fake.refusals += [overloaded(1.5), overloaded(3)]
    call(method, *([] if method == "info" else ["a sailor"]))
    first, second = time.waits
    assert 1.5 <= first <= 1.5 + 0.1
    assert 3 <= second <= 3 + 0.2
    assert len(fake.calls) == 3


def test_a_retry_repeats_key_seed_and_request_id(call, fake):
    fake.refusals += [Refusal(CODE.UNAVAILABLE, "DRAINING"), Refusal(CODE.UNAVAILABLE)]
    call("generate", "a sailor")
    assert len({request.SerializeToString() for request in fake.named("Generate")}) == 1
    request = fake.named("Generate")[0]
    assert len(request.idempotency_key) == 32
    assert request.portrait.HasField("seed")
    assert len({metadata["x-request-id"] for _, _, metadata in fake.calls}) == 1
    call("generate", "a sailor")
    assert fake.named("Generate")[-1].idempotency_key != request.idempotency_key


@pytest.mark.parametrize("method", ["generate", "stream", "info"])
def test_a_stream_that_a_proxy_has_reset_is_taken_up_again(call, fake, time, method):
    fake.refusals.append(Refusal(CODE.INTERNAL, message="Received RST_STREAM with error code 2"))
    call(method, *([] if method == "info" else ["a sailor"]))
    assert len(fake.calls) == 2
    assert len(time.waits) == 1


def test_backoff_grows_and_gives_up_with_the_last_error(call, fake, time):
    fake.refusals += [Refusal(CODE.UNAVAILABLE, "ENGINE_UNAVAILABLE", message=f"no {n}") for n in range(9)]
    with pytest.raises(Unavailable, match="no 5") as caught:
        call("generate", "a sailor")
    assert caught.value.reason == "ENGINE_UNAVAILABLE"
    assert len(time.waits) == 5
    for wait, full in zip(time.waits, [0.2, 0.4, 0.8, 1.6, 3.2], strict=True):
        assert full / 2 <= wait <= full


def test_no_wait_goes_past_the_deadline(call, fake, time):
    fake.refusals += [overloaded(30), overloaded(31)]
    with pytest.raises(Overloaded) as caught:
        call("generate", "a sailor", timeout=60)
    assert caught.value.retry_after == 31
    assert len(time.waits) == 1


def test_each_try_gets_the_time_that_is_left(time):
    from limner_client.exchange import Exchange, Session

    exchange = Exchange(Session(clock=time.clock), timeout=10)
    time.now += 4
    assert exchange.call("/x", b"").timeout == pytest.approx(6)
    time.now += 6
    with pytest.raises(DeadlineExceeded):
        exchange.call("/x", b"")


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (Refusal(CODE.INVALID_ARGUMENT, "INVALID_FIELD", retry_after=1), InvalidRequest),
        (overloaded(None), Overloaded),
        (Refusal(CODE.RESOURCE_EXHAUSTED), LimnerError),
        (Refusal(CODE.INTERNAL, "INTERNAL"), ServerFault),
        (Refusal(CODE.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"), DeadlineExceeded),
    ],
)
def test_what_no_wait_mends_is_not_retried(call, fake, time, refusal, kind):
    fake.refusals.append(refusal)
    with pytest.raises(kind):
        call("generate", "a sailor")
    assert len(fake.calls) == 1
    assert time.waits == []


@pytest.mark.parametrize("method", ["generate", "stream"])
def test_an_infeasible_deadline_is_told_at_once_for_a_wait_brings_it_nearer(call, fake, time, method):
    fake.refusals.append(Refusal(CODE.RESOURCE_EXHAUSTED, "DEADLINE_INFEASIBLE", retry_after=0.5))
    with pytest.raises(DeadlineInfeasible) as caught:
        call(method, "a sailor")
    assert caught.value.retry_after == 0.5
    assert len(fake.calls) == 1
    assert time.waits == []


def test_health_is_asked_once(call, fake, time):
    call("health")
    assert time.waits == []


def test_a_policy_of_one_try_never_waits():
    error = Unavailable("away", code="UNAVAILABLE")
    policy = RetryPolicy(max_attempts=1)
    assert policy.delay(error, attempt=1, remaining=100, random=Random(1)) is None


def test_an_unreachable_server_is_unavailable():
    from limner_client import Client

    with (
        Client("127.0.0.1:1", retry=RetryPolicy(max_attempts=1)) as client,
        pytest.raises(Unavailable) as caught,
    ):
        client.info()
    assert caught.value.code == "UNAVAILABLE"
    assert len(caught.value.request_id) == 32
