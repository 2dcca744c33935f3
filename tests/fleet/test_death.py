"""``kill -9`` of a replica under load: what is lost, who hears of it, and what comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from limner_client import Client, Completed, Portrait, Progress

from tests.fleet.fleet import Fleet, Person
from tests.fleet.load import Kind, Load
from tests.fleet.monitoring import HASTENED
from tests.fleet.replica import Replica
from tests.waiting import until

LONG = {"steps": 100, "guidance_scale": 1.0, "image_count": 4}
"""Long enough that the replica is killed in the middle of it."""
UNARY, STREAMS = 4, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """What was seen of a death and of the return after it. Times in seconds from the kill."""

    victim: Replica
    load: Load
    in_flight: int
    """Generations that the victim had in flight when it was killed."""
    calls: tuple[Future[Portrait], ...]
    """The long ones, all ended: unary ones first, then streams."""
    alerted: float
    firing: frozenset[str]
    """Instances whose alert fired while it was dead."""
    back: float
    returned_home: bool
    """Whether the victim's reference is served by it again."""

    def request_ids(self, calls: slice) -> set[str]:
        """Return the request ids of long calls."""
        return {call.result().request_id for call in self.calls[calls]}


@pytest.fixture(scope="module")
def death(fleet: Fleet, client: Client, people: Sequence[Person]) -> Death:
    victim = fleet.replicas[0]
    own = [person.picture for person in people if person.home is victim]
    begun = [threading.Event() for _ in range(STREAMS)]

    def unary(number: int) -> Portrait:
        return client.generate("a sailor", own[number % len(own)], **LONG)

    def stream(number: int) -> Portrait:
        with client.stream("a sailor", own[number % len(own)], **LONG) as news:
            for event in news:
                if isinstance(event, Progress):
                    begun[number].set()
        assert isinstance(event, Completed)
        return event.portrait

    def generate(number: int) -> None:
        client.generate("a sailor", people[number % len(people)].picture, steps=2, guidance_scale=1.0)

    kinds = [Kind(name="generate", make=generate), Kind(name="limits", make=lambda _: client.limits())]
    with ThreadPoolExecutor(UNARY + STREAMS) as threads, ExitStack() as stack:
        # Before the load, which might have Envoy send them to another replica.
        streams = [threads.submit(stream, number) for number in range(STREAMS)]
        until(lambda: all(one.is_set() for one in begun), "the streams do not begin")
        load = stack.enter_context(Load(kinds, callers=4, pause=0.1))
        calls = [*(threads.submit(unary, number) for number in range(UNARY)), *streams]
        until(lambda: victim.in_flight() >= UNARY, "the long calls do not reach the victim")
        in_flight = victim.in_flight()
        victim.kill()
        killed = time.monotonic()
        try:
            until(lambda: fired(fleet), "no alert fires")
            alerted, firing = time.monotonic() - killed, fired(fleet)
            wait(calls)
        finally:
            fleet.start(victim)
        back = time.monotonic() - killed
        again = fleet.home(client.generate("a sailor", own[0], steps=2).request_id)
        until(lambda: not fleet.prometheus.alerts(HASTENED), "the alert outlasts its cause")
    return Death(
        victim=victim, load=load, in_flight=in_flight, calls=tuple(calls), alerted=alerted, firing=firing, back=back,
        returned_home=again is victim,
    )  # fmt: skip


def fired(fleet: Fleet) -> frozenset[str]:
    alerts = fleet.prometheus.alerts(HASTENED)
    return frozenset(alert.instance for alert in alerts if alert.state == "firing")


def test_no_call_is_lost(death: Death) -> None:
    print(f"\nin flight at its death: {death.in_flight}; answered under load: {dict(death.load.counts())}")
    assert death.in_flight >= UNARY
    assert death.load.failures == []
    assert [call.exception() for call in death.calls] == [None] * (UNARY + STREAMS)
    assert {len(call.result().images) for call in death.calls} == {LONG["image_count"]}


def test_envoy_repeats_a_call_that_had_no_answer_yet(fleet: Fleet, death: Death) -> None:
    ids = death.request_ids(slice(UNARY))
    lines = [line for line in fleet.envoy.access_log() if line["request_id"] in ids]
    repeated = [line for line in lines if line["attempts"] > 1]
    print(f"\n{len(repeated)} of {UNARY} unary calls were repeated by Envoy")
    assert repeated
    assert all(line["grpc_status"] == "OK" for line in lines), "the callers heard nothing of it"
    assert all(line["upstream"] != death.victim.target for line in repeated)


def test_the_client_takes_up_a_stream_that_had_begun(fleet: Fleet, death: Death) -> None:
    ids = death.request_ids(slice(UNARY, None))
    lines = [line for line in fleet.envoy.access_log() if line["request_id"] in ids]
    broken = [line for line in lines if line["upstream"] == death.victim.target]
    print(f"\n{len(broken)} of {STREAMS} streams broke")
    assert broken, "Envoy may not repeat what it has passed on in part"
    assert all(line["grpc_status"] != "OK" for line in broken)
    elsewhere = {line["request_id"] for line in lines if line["upstream"] != death.victim.target}
    assert elsewhere == ids, "each was answered by another replica in the end"


def test_the_alert_fires_for_the_dead_replica(fleet: Fleet, death: Death) -> None:
    print(f"\nthe alert fired {death.alerted:.1f} s after the death")
    assert death.firing == {death.victim.metrics_target}
    rules = fleet.prometheus.rules()
    assert {HASTENED, "LimnerErrorBudgetFast"} <= rules.keys()
    assert {name: rule["lastError"] for name, rule in rules.items() if rule["health"] != "ok"} == {}


def test_the_replica_comes_back_to_its_references(death: Death) -> None:
    print(f"\nback {death.back:.1f} s after its death")
    assert death.returned_home
