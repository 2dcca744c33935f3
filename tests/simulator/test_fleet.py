"""A fleet: every request ends once, stages add up, runs repeat."""

from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import EngineConfig
from engine.scheduling import Priority, WorkItem
from engine.scheduling.simulate import Arrival, Outcome, simulate
from loadtests.simulator.call import Found
from loadtests.simulator.errors import SimulationError
from loadtests.simulator.fleet import Fleet
from loadtests.simulator.machine import Machine
from loadtests.simulator.popularity import Popularity
from loadtests.simulator.routing import ROUTERS
from loadtests.simulator.settings import FleetSettings
from loadtests.simulator.summary import summarise, unloaded_seconds
from loadtests.simulator.traffic import ClosedLoop, Mix, OpenLoop, poisson

from .builders import ALONE, SHAPE, STAGED, request, run

requests = st.builds(
    dict,
    at=st.floats(0, 3),
    person=st.none() | st.integers(0, 5),
    images=st.integers(1, 3),
    steps=st.integers(1, 6),
    rows=st.sampled_from((1, 2)),
    priority=st.sampled_from(Priority),
    deadline=st.none() | st.floats(0.01, 1),
    cancel_after=st.none() | st.floats(0, 0.5),
    deterministic=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(
    asked=st.lists(requests, max_size=40),
    router=st.sampled_from(sorted(ROUTERS)),
    replicas=st.integers(1, 3),
    shared=st.sampled_from((0, 1 << 20)),
    permits=st.sampled_from((3, 256)),
)
def test_every_request_ends_once(asked, router, replicas, shared, permits) -> None:
    asked = sorted(asked, key=lambda one: one["at"])
    fleet = Fleet(
        FleetSettings(
            machine=STAGED,
            router=router,
            replicas=replicas,
            shared_bytes=shared,
            permits=permits,
            seconds=10.0,
        )
    )
    ends: Counter[int] = Counter()
    for server in fleet._servers:
        ended = server._ended
        server._ended = lambda call, ended=ended: (ends.update([call.request.id]), ended(call))
    traffic = OpenLoop(request(number, **one) for number, one in enumerate(asked))
    outcome = fleet.run(traffic)
    assert ends == Counter(range(len(asked)))
    assert fleet._router.total == 0 and set(fleet._router.in_flight) == {0}
    for call in outcome.calls:
        assert call.outcome is not None and call.latency >= 0
        if call.outcome is Outcome.FINISHED:
            assert call.delivered == call.request.images
            # A finished request took all its ticks, one after another.
            assert call.latency >= call.request.steps * 0.010


def test_the_latency_of_one_request_is_the_sum_of_its_stages() -> None:
    (hit, miss) = (run([request(0, 0.0, rows=2, steps=5, person=person)]).calls[0] for person in (None, 7))
    assert hit.latency == pytest.approx(unloaded_seconds(STAGED, steps=5), abs=1e-9)
    assert miss.found is Found.MISS
    # The turn that encodes has nothing else to do, so it costs its overhead as well.
    assert miss.latency - hit.latency == pytest.approx(0.050 + 0.020 + 0.0002, abs=1e-9)


def test_a_second_request_for_a_person_hits_or_joins() -> None:
    found = [
        call.found for call in run([request(n, at, person=7) for n, at in enumerate((0.0, 0.01, 5.0))]).calls
    ]
    assert found == [Found.MISS, Found.COALESCED, Found.HIT]


def test_the_shared_cache_serves_the_other_replica() -> None:
    asked = [request(0, 0.0, person=7), request(1, 1.0, person=7)]
    together = run(asked, replicas=2, router="round-robin", shared_bytes=1 << 20)
    assert [call.found for call in together.calls] == [Found.MISS, Found.SHARED]
    assert sum(counters.encoded for counters in together.counters) == 1
    apart = run(asked, replicas=2, router="round-robin")
    assert [call.found for call in apart.calls] == [Found.MISS, Found.MISS]


def test_what_passes_its_deadline_expires_and_what_cannot_keep_it_is_refused() -> None:
    late = run([request(0, 0.0, deadline=0.01)]).calls[0]
    assert late.outcome is Outcome.REFUSED
    slow = run([request(0, 0.0, deadline=5.0)], machine=_slower(STAGED, 200.0)).calls[0]
    assert slow.outcome is Outcome.EXPIRED


def test_permits_bound_what_is_in_a_server() -> None:
    outcomes = Counter(call.outcome for call in run([request(n, 0.0) for n in range(5)], permits=2).calls)
    assert outcomes == {Outcome.FINISHED: 2, Outcome.REFUSED: 3}


def test_callers_of_a_closed_loop_wait_for_their_answers() -> None:
    fleet = Fleet(FleetSettings(machine=ALONE, warmup_seconds=0, seconds=45.0))
    outcome = fleet.run(ClosedLoop((request(n, 0.0) for n in range(99)), callers=1, until=45.0))
    assert [call.request.at for call in outcome.calls] == [4.5 * n for n in range(10)]
    assert outcome.peak_in_flight == 1


def test_equal_seeds_give_equal_runs_and_others_do_not() -> None:
    def once(seed: int) -> list[tuple[float | None, int]]:
        people = Popularity(100, 1.0)
        rng = np.random.default_rng(seed)
        asked = poisson(Mix(batch=0.3, steps=(5, 10)), people, rate=20, seconds=20, rng=rng)
        outcome = run(asked, replicas=3, router="least-request", seed=seed, machine=_jittery(STAGED))
        return [(call.ended, call.replica) for call in outcome.calls]

    assert once(1) == once(1)
    assert once(1) != once(2)


def test_who_comes_while_a_tick_is_made_ready_is_looked_at_when_it_begins() -> None:
    """A prompt takes 5 ms, and then a tick 10."""
    machine = msgspec.structs.replace(STAGED, arrive_seconds=0.0, answer_seconds=0.0)
    first, hasty = run([request(0, 0.0), request(1, 0.003, deadline=0.01)], machine=machine).calls
    assert first.outcome is Outcome.FINISHED
    assert (hasty.outcome, hasty.ended) == (Outcome.REFUSED, pytest.approx(0.005))


def test_without_its_other_stages_a_replica_is_the_schedulers_own_simulation() -> None:
    """With one row a tick at most one image finishes in it, so decodes fall into the same places."""
    rng = np.random.default_rng(8)
    asked = [
        request(number, at, steps=int(rng.integers(1, 6)), priority=Priority(int(rng.integers(0, 2))))
        for number, at in enumerate(np.cumsum(rng.exponential(4.0, 200)).tolist())
    ]
    config = EngineConfig()
    events = [
        Arrival(
            at=one.at,
            items=(
                WorkItem(
                    id=f"{one.id}",
                    job_id=f"{one.id}",
                    steps=one.steps,
                    rows=1,
                    shape=SHAPE,
                    priority=one.priority,
                ),
            ),
        )
        for one in asked
    ]
    plain = simulate(events, buckets=(1,), costs=ALONE.planned_costs(), policy=ALONE.policy(config))
    calls = run(asked, machine=ALONE, seconds=2000.0).calls
    assert [call.ended for call in calls] == [plain.records[str(one.id)].ended for one in asked]


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_one_row_at_a_time_waits_as_in_an_m_d_1_queue(load: float) -> None:
    """Bucket 1 and one step make a single server with a constant service time of 1.5 s."""
    service, seconds = 1.5, 60_000.0
    asked = poisson(
        Mix(steps=(1,), guided=0, referenced=0),
        Popularity(1, 0),
        rate=load / service,
        seconds=seconds,
        rng=np.random.default_rng(4),
    )
    outcome = run(asked, machine=ALONE, seconds=seconds, permits=10**6)
    waits = [call.latency - service for call in outcome.calls]
    # Pollaczek-Khinchine; the image's decode of 0.5 s is engine time as its tick is.
    assert np.mean(waits) == pytest.approx(load * service / (2 * (1 - load)), rel=0.08)
    assert outcome.counters[0].busy_seconds / seconds == pytest.approx(load, rel=0.03)


def test_figures_of_a_run_that_is_known() -> None:
    outcome = run([request(n, 10.0 * n) for n in range(6)], machine=ALONE, seconds=60.0)
    summary = summarise(outcome, service_level=lambda _: 5.0, price=3.0)
    assert (summary.arrived, summary.outcomes) == (6, {"finished": 6})
    assert summary.throughput == summary.goodput == 0.1
    assert (summary.latency.p50, summary.padded_share, summary.mean_rows) == (4.5, 0, 1)
    assert summary.busy == pytest.approx(0.45)
    assert summary.cost == pytest.approx(3.0 / 360 * 1000)


@pytest.mark.parametrize(
    ("field", "settings_"),
    [
        ("replicas", {"replicas": 0}),
        ("router", {"router": "nowhere"}),
        ("balance", {"balance": 1.0}),
        ("permits", {"permits": 0}),
        ("seconds", {"seconds": 0}),
    ],
)
def test_wrong_settings_are_named(field: str, settings_: dict[str, object]) -> None:
    with pytest.raises(SimulationError, match=field) as caught:
        Fleet(FleetSettings(machine=STAGED, **settings_))
    assert caught.value.field == field


def _slower(machine: Machine, factor: float) -> Machine:
    """Return a machine that turns out slower than what its engine plans with."""
    return msgspec.structs.replace(machine, slowdown=factor)


def _jittery(machine: Machine) -> Machine:
    return msgspec.structs.replace(machine, jitter=0.1)
