"""Plans: one seed is one plan, and what is drawn is distributed as the scenario says."""

from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pytest

from loadtests.runner.arrivals import CLOSED_LOOP_MARGIN
from loadtests.runner.plan import CALIBRATION_PEOPLE, FIRST_NEWCOMER, Plan, Speed, samples
from loadtests.runner.scenario import Bursts, Cancel, Closed, Mix, Phase, Poisson, Span, Stream, Trace
from tests.loadtests.building import SPEED, plan, replaced, scenario, stream


def times(made: Plan) -> list[float]:
    return [request.at for request in made.requests]


def test_one_seed_is_one_plan_and_another_seed_another() -> None:
    def made(seed: int) -> Plan:
        return plan(stream(prompts=0, newcomers=0.2, steps=(10, 20)), seed=seed)

    assert made(1) == made(1)
    assert times(made(1)) != times(made(2))
    assert [request.number for request in made(1).requests] == list(range(len(made(1).requests)))


def test_requests_are_in_the_order_of_their_moments() -> None:
    made = plan(stream("one"), stream("two"))
    assert times(made) == sorted(times(made))
    assert {request.stream for request in made.requests} == {"one", "two"}


def test_poisson_arrivals_have_exponential_gaps() -> None:
    at = np.array(times(plan(stream(arrivals=Poisson(per_second=20.0)), seconds=500.0)))
    gaps = np.diff(at)
    assert len(at) == pytest.approx(10_000, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)
    # Kolmogorov and Smirnov, against the exponential distribution; 1.36 / sqrt(n) is the limit at 5%.
    ranks = (np.arange(len(gaps)) + 0.5) / len(gaps)
    distance = np.abs(1 - np.exp(-np.sort(gaps) * 20.0) - ranks).max()
    assert distance < 1.36 / np.sqrt(len(gaps))


def test_a_rate_is_relative_to_the_capacity() -> None:
    one = plan(stream(arrivals=Poisson(rate=0.7)), seconds=1000.0)
    assert len(one.requests) / 1000 == pytest.approx(7.0, rel=0.05)
    faster = plan(
        stream(arrivals=Poisson(rate=0.7)), seconds=1000.0, speed=Speed(capacity=20.0, unloaded=0.5)
    )
    # The same chance at twice the speed.
    assert np.array(times(faster))[: len(one.requests)] == pytest.approx(np.array(times(one)) / 2)


def test_bursts_come_together_and_keep_the_mean_rate() -> None:
    made = plan(stream(arrivals=Bursts(per_second=6.0, size=12, within=0.1)), seconds=2000.0)
    assert len(made.requests) / 2000 == pytest.approx(6.0, rel=0.1)
    counts = np.histogram(times(made), np.arange(0, 2001, 1.0))[0]
    # Poisson counts have as much variance as mean; those of bursts about `size` times as much.
    assert counts.var() / counts.mean() > 6


def test_a_trace_is_stretched_to_the_rate_and_begins_again() -> None:
    trace = Trace(offsets=(0.0, 1.0, 3.0), people=(4, 5, 6))
    played = plan(stream(arrivals=trace), seconds=9.0)
    # Length 3 with two gaps, so it begins again after 4.5 seconds.
    assert times(played) == pytest.approx([0.0, 1.0, 3.0, 4.5, 5.5, 7.5])
    assert [request.person for request in played.requests] == [4, 5, 6, 4, 5, 6]
    stretched = Trace(offsets=trace.offsets, people=trace.people, per_second=2.0)
    assert times(plan(stream(arrivals=stretched), seconds=3.0)) == pytest.approx(np.array(times(played)) / 3)


def test_a_closed_loop_has_more_than_its_callers_can_use() -> None:
    made = plan(stream(arrivals=Closed(concurrency=3)), seconds=10.0)
    assert len(made.requests) == 3 + CLOSED_LOOP_MARGIN * SPEED.capacity * 10


def test_phases_share_the_duration_and_streams_keep_to_theirs() -> None:
    late = Stream(name="late", arrivals=Poisson(per_second=5.0), phases=("second",))
    made = plan(
        stream("both"),
        late,
        phases=(Phase(name="first", share=1.0), Phase(name="second", share=3.0)),
        seconds=40.0,
    )
    assert made.scenario.turns() == {"first": ((0.0, 10.0),), "second": ((10.0, 40.0),)}
    for request in made.requests:
        begin, end = made.scenario.turns()[request.phase][request.turn]
        assert begin <= request.at < end
    assert {request.phase for request in made.requests if request.stream == "late"} == {"second"}


@pytest.mark.parametrize("alike", [True, False])
def test_a_stream_that_is_alike_comes_at_the_same_moments_of_each_phase(*, alike: bool) -> None:
    phases = (Phase(name="one"), Phase(name="two"))
    callers = Stream(name="callers", arrivals=Poisson(per_second=5.0), alike=alike)
    made = plan(callers, phases=phases, seconds=60.0)
    one, two = (
        [round(request.at - begin, 6) for request in made.requests if request.phase == phase]
        for phase, ((begin, _),) in made.scenario.turns().items()
    )
    assert len(one) > 10
    assert (one == two) is alike


def test_people_follow_zipfs_law() -> None:
    made = plan(stream(arrivals=Poisson(per_second=200.0), people=10, zipf=1.0))
    counts = Counter(request.person for request in made.requests)
    weights = np.array([1 / rank for rank in range(1, 11)])
    expected = len(made.requests) * weights / weights.sum()
    found = np.array([counts[person] for person in range(10)])
    chi_square = ((found - expected) ** 2 / expected).sum()
    assert chi_square < 16.92  # 5% of nine degrees of freedom


def test_newcomers_are_new_and_bring_their_picture() -> None:
    made = plan(stream(arrivals=Poisson(per_second=50.0), newcomers=0.3, people=5))
    new = [request for request in made.requests if request.brings_picture]
    assert len(new) / len(made.requests) == pytest.approx(0.3, abs=0.02)
    people = [request.person for request in new]
    assert len(set(people)) == len(people)
    assert min(person for person in people if person is not None) >= FIRST_NEWCOMER
    assert made.known_people == [0, 1, 2, 3, 4]


def test_unknown_people_bring_their_picture_the_first_time() -> None:
    made = plan(stream(people=5), known=False)
    seen: set[int | None] = set()
    for request in made.requests:
        assert request.brings_picture == (request.person not in seen)
        seen.add(request.person)
    assert made.known_people == []


def test_shares_and_lists_are_drawn_evenly() -> None:
    made = plan(
        Stream(
            name="callers",
            arrivals=Poisson(per_second=100.0),
            cancel=Cancel(share=0.2, after=(0.5, 1.0)),
            deadline=Span(unloaded=4.0),
            mix=Mix(referenced=0.75, steps=(10, 20, 20), prompts=7, images=(1, 2)),
        )
    )
    count = len(made.requests)
    assert sum(request.person is not None for request in made.requests) / count == pytest.approx(
        0.75, abs=0.02
    )
    assert sum(request.steps == 20 for request in made.requests) / count == pytest.approx(2 / 3, abs=0.02)
    assert sum(request.images for request in made.requests) / count == pytest.approx(1.5, abs=0.03)
    assert len({request.prompt for request in made.requests}) == 7
    after = [request.cancel_after for request in made.requests if request.cancel_after is not None]
    assert len(after) / count == pytest.approx(0.2, abs=0.02)
    assert min(after) >= 0.25
    assert max(after) <= 0.5
    assert {request.deadline for request in made.requests} == {2.0}


def test_prompts_of_their_own_are_all_different() -> None:
    made = plan(stream(prompts=0), seconds=20.0)
    # Two scenes may be drawn alike, rarely.
    assert len({request.prompt for request in made.requests}) > 0.95 * len(made.requests)


def test_a_change_of_one_property_leaves_the_others_as_they_were() -> None:
    one, other = plan(stream(steps=(20,))), plan(stream(steps=(10, 30)))
    assert [replaced(request, steps=0) for request in one.requests] == [
        replaced(request, steps=0) for request in other.requests
    ]


def test_a_longer_plan_begins_as_the_shorter_one() -> None:
    short, longer = plan(stream(), seconds=20.0), plan(stream(), seconds=60.0)
    assert longer.requests[: len(short.requests)] == short.requests


def test_samples_for_calibration_take_turns_and_are_patient() -> None:
    impatient = Stream(
        name="one",
        arrivals=Poisson(rate=1.0),
        priority="batch",
        deadline=Span(seconds=1.0),
        cancel=Cancel(share=1.0),
        mix=Mix(newcomers=1.0),
    )
    drawn = list(islice(samples(scenario(impatient, stream("two", people=3)), 0), 200))
    assert all(one.stream != other.stream for one, other in pairwise(drawn))
    for request in drawn:
        assert (request.deadline, request.cancel_after, request.priority) == (None, None, "interactive")
        assert request.person in range(CALIBRATION_PEOPLE)
        assert not request.brings_picture
