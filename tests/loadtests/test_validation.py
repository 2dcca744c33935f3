"""From a run's report to the simulator's verdict: what `export` writes is what `simulate --validate` reads."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import msgspec
import pytest

from engine.scheduling.simulate import Outcome
from loadtests.__main__ import main
from loadtests.runner.command_export import export
from loadtests.runner.plan import Plan, make_plan, samples
from loadtests.runner.record import Record
from loadtests.runner.report import write_report
from loadtests.runner.scenario import Bursts, Cancel, Mix, Poisson, Stream
from loadtests.runner.target import Status
from loadtests.runner.watch import Sample
from loadtests.simulator import fitting
from loadtests.simulator.errors import SimulationError
from loadtests.simulator.fleet import Fleet
from loadtests.simulator.machine import Machine, TickCosts
from loadtests.simulator.pace import (
    STEADY,
    OnTick,
    Pace,
    SimulatedTick,
    Stretch,
    TickTimes,
    nobody,
)
from loadtests.simulator.settings import FleetSettings
from loadtests.simulator.traffic import OpenLoop
from loadtests.simulator.validation import RealRun, table, validate
from loadtests.ticks import BucketTicks
from tests.loadtests.building import SPEED, answer, report, scenario
from tests.simulator.builders import SHAPE, STAGED

MACHINE = msgspec.structs.replace(STAGED, place_seconds=0.0005)
STATUSES = {Outcome.FINISHED: Status.OK, Outcome.CANCELLED: Status.CANCELLED, Outcome.REFUSED: Status.REFUSED}
STREAMS = (
    Stream(
        name="mixed",
        arrivals=Poisson(per_second=6.0),
        cancel=Cancel(share=0.3, after=(0.1, 0.9)),
        mix=Mix(
            newcomers=0.2,
            steps=(4, 8, 12),
            guidance_scales=(1.0, 5.0),
            images=(1, 1, 2),
            sizes=((0, 0), (96, 64)),
            prompts=5,
        ),
    ),
    Stream(name="bursts", arrivals=Bursts(size=6, within=0.1, per_second=3.0), mix=Mix(steps=(6,))),
)


def plan() -> Plan:
    return make_plan(scenario(*STREAMS, seconds=20.0), 0, SPEED)


def exported(made: Plan, records: list[Record]) -> RealRun:
    told = export(report(records, of=made.scenario, calibrated=False))
    return msgspec.convert(msgspec.to_builtins(told), RealRun)


def served(made: Plan, machine: Machine, pace: Pace = STEADY, on_tick: OnTick = nobody) -> list[Record]:
    """The records of a run on a server that is exactly such a machine, which may change its speed."""
    blank = [answer(one.number, due=one.at, latency=0.1) for one in made.requests]
    requests = [one.request(number) for number, one in enumerate(exported(made, blank).requests)]
    settings = FleetSettings(machine=machine, warmup_seconds=0.0, seconds=60.0)
    calls = Fleet(settings, known=made.known_people, pace=pace, on_tick=on_tick).run(OpenLoop(requests)).calls
    records = []
    for call in calls:
        assert call.outcome is not None
        told = {"status": STATUSES[call.outcome], "images": call.request.images}
        records.append(answer(call.request.id, due=call.request.at, latency=call.latency, **told))
    return sorted(records, key=lambda one: one.number)


def test_a_server_that_is_the_machine_is_predicted_whatever_was_asked() -> None:
    made = plan()
    records = served(made, MACHINE)
    assert {one.status for one in records} == {Status.OK, Status.CANCELLED}
    found = validate(exported(made, records), MACHINE)
    for figure in ("throughput", "p50", "p95", "p99"):
        assert found.off(figure) == pytest.approx(0, abs=1e-6), figure


def test_the_commands_carry_a_report_to_a_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, machine = plan(), tmp_path / "machine.json"
    machine.write_bytes(msgspec.json.encode(MACHINE))
    records = served(made, MACHINE)
    write_report(report(records, of=made.scenario, calibrated=False), tmp_path / "test.json")
    assert main(["export", str(tmp_path / "test.json"), str(tmp_path / "test.run.json")]) == 0
    validation = ["simulate", "--machine", str(machine), "--validate", str(tmp_path / "test.run.json")]
    assert main(validation) == 0
    assert "(+0.0%)" in capsys.readouterr().out
    machine.write_bytes(msgspec.json.encode(msgspec.structs.replace(MACHINE, slowdown=1.5)))
    assert main(validation) == 1


def calibrated(made: Plan, run: RealRun, machine: Machine) -> RealRun:
    """The run with what a server that is such a machine did before it."""
    told = export(report([answer(0, due=0.0, latency=0.1)], of=made.scenario))
    calibration = msgspec.convert(msgspec.to_builtins(told), RealRun).calibration
    assert calibration is not None
    calibration = msgspec.structs.replace(
        calibration,
        unloaded=fitting._unloaded(machine, calibration),
        capacity=fitting._capacity(machine, calibration),
    )
    return msgspec.structs.replace(run, calibration=calibration)


def test_a_machine_is_brought_to_the_speed_that_the_server_had() -> None:
    made = plan()
    other = fitting._scaled(MACHINE, 1.25, 1.2)
    run = exported(made, served(made, other))
    assert not validate(run, MACHINE).holds
    found = validate(calibrated(made, run, other), MACHINE)
    assert found.fit is not None
    assert (found.fit.slowdown, found.fit.small) == pytest.approx((1.25, 1.2), rel=0.03)
    for figure in ("throughput", "p50", "p95", "p99"):
        assert found.off(figure) == pytest.approx(0, abs=0.05), figure


def test_small_ticks_are_left_alone_where_nothing_alone_takes_them() -> None:
    """Four guided images at once fill the largest bucket."""
    made = make_plan(
        scenario(Stream(name="s", arrivals=Poisson(per_second=0.5), mix=Mix(images=(4,))), seconds=30.0),
        0,
        SPEED,
    )
    run = calibrated(made, exported(made, served(made, MACHINE)), MACHINE)
    assert run.calibration is not None
    slower = msgspec.structs.replace(run.calibration, unloaded=1.5 * run.calibration.unloaded)
    found = validate(msgspec.structs.replace(run, calibration=slower), MACHINE)
    assert found.fit is not None
    assert found.fit.small == 1.0
    simulated, real = found.fit.unloaded
    assert real == pytest.approx(1.5 * simulated, rel=0.05)
    assert f"alone {simulated:.3f} for {real:.3f} s" in table([found])


def test_a_machine_that_has_its_speed_keeps_it() -> None:
    made = plan()
    run = calibrated(made, exported(made, served(made, MACHINE)), MACHINE)
    found = validate(run, MACHINE)
    assert found.fit is not None
    assert (found.fit.slowdown, found.fit.small) == pytest.approx((1.0, 1.0), rel=1e-6)
    assert found.holds


def test_a_server_that_was_another_machine_altogether_is_refused() -> None:
    made = plan()
    run = calibrated(made, exported(made, served(made, MACHINE)), fitting._scaled(MACHINE, 8.0, 1.0))
    with pytest.raises(SimulationError, match="another machine"):
        validate(run, MACHINE)


def test_the_calibration_is_exported_as_the_runner_asked_for_it() -> None:
    made = plan()
    told = export(report([answer(0, due=0.0, latency=0.1)], of=made.scenario))
    run = msgspec.convert(msgspec.to_builtins(told), RealRun)
    assert run.calibration is not None
    settings = made.scenario.calibration
    drawn = list(islice(samples(made.scenario, 0), 3 + settings.alone))[
        3:
    ]  # three of two sizes are for warming up
    steps = [one.steps for one in drawn]
    assert [one.steps for one in run.calibration.alone] == steps
    assert run.calibration.callers == settings.concurrency
    assert len(run.calibration.saturated) > SPEED.capacity * settings.seconds
    assert exported(made, [answer(0, due=0.0, latency=0.1)]).calibration is None


def reading(at: float, **buckets: tuple[int, float]) -> Sample:
    """A reading of the page: ticks so far and their seconds by bucket, `b2` and `b8`."""
    ticks = {
        int(name[1:]): BucketTicks(count=count, seconds=seconds) for name, (count, seconds) in buckets.items()
    }
    return Sample(at=at, values={}, ticks=ticks)


BEFORE = (reading(3.0), reading(15.0, b2=(70, 0.75), b8=(80, 3.0)))
DURING = (
    reading(0.0, b2=(70, 0.75), b8=(80, 3.0)),
    reading(5.0, b2=(80, 1.0), b8=(160, 6.0)),
    reading(10.0, b2=(80, 1.0), b8=(240, 15.0)),
)


def with_ticks(calibration: tuple[Sample, ...], samples: tuple[Sample, ...]) -> RealRun:
    told = report([answer(0, due=0.0, latency=0.1)], of=plan().scenario, samples=samples)
    told = msgspec.structs.replace(told, calibration=calibration)
    return msgspec.json.decode(msgspec.json.encode(export(told)), type=RealRun)


def test_ticks_are_exported_between_two_readings() -> None:
    assert with_ticks(BEFORE, DURING).ticks == TickTimes(
        calibration={2: BucketTicks(count=70, seconds=0.75), 8: BucketTicks(count=80, seconds=3.0)},
        run=(
            Stretch(
                until=5.0,
                ticks={2: BucketTicks(count=10, seconds=0.25), 8: BucketTicks(count=80, seconds=3.0)},
            ),
            Stretch(
                until=10.0,
                ticks={2: BucketTicks(count=0, seconds=0.0), 8: BucketTicks(count=80, seconds=9.0)},
            ),
        ),
    )


@pytest.mark.parametrize(
    ("calibration", "samples"),
    [
        ((), DURING),
        (BEFORE, ()),
        (BEFORE, DURING[:1]),
        (BEFORE, DURING[::-1]),
        (BEFORE, (DURING[0], reading(5.0, b2=(60, 2.0), b8=(500, 50.0)))),
    ],
    ids=["not calibrated", "not watched", "read once", "another server", "another server, further on"],
)
def test_without_readings_of_one_server_no_ticks_are_told(
    calibration: tuple[Sample, ...], samples: tuple[Sample, ...]
) -> None:
    assert with_ticks(calibration, samples).ticks is None


def ticks_of(simulated: Iterable[SimulatedTick]) -> dict[int, BucketTicks]:
    told: dict[int, BucketTicks] = {}
    for tick in simulated:
        before = told.get(tick.bucket, BucketTicks())
        told[tick.bucket] = before + BucketTicks(count=1, seconds=tick.seconds)
    return told


def watched(run: RealRun, machine: Machine, ticks: list[SimulatedTick]) -> RealRun:
    """The run as somebody watched it on a server that is such a machine, with a reading each second."""
    assert run.calibration is not None
    seconds = range(1, 2 + int(max(tick.at for tick in ticks)))
    read = TickTimes(
        calibration=ticks_of(fitting.calibration_ticks(machine, run.calibration)),
        run=tuple(
            Stretch(until=until, ticks=ticks_of(tick for tick in ticks if until - 1 < tick.at <= until))
            for until in map(float, seconds)
        ),
    )
    return msgspec.structs.replace(run, ticks=read)


def test_a_run_in_which_the_machine_changed_its_speed_is_simulated_so() -> None:
    made = plan()
    ticks: list[SimulatedTick] = []
    records = served(made, MACHINE, pace=Pace((8.0,), (1.0, 1.6)), on_tick=ticks.append)
    run = calibrated(made, exported(made, records), MACHINE)
    assert not validate(run, MACHINE).holds
    found = validate(watched(run, MACHINE, ticks), MACHINE)
    assert found.pace is not None
    assert [found.pace(at) for at in (4.0, 15.0)] == pytest.approx([1.0, 1.6], rel=0.05)
    for figure in ("throughput", "p50", "p95"):
        assert found.off(figure) == pytest.approx(0, abs=0.06), figure
    assert found.steady is not None
    off = found.steady.p95 / found.real.p95 - 1
    assert off < -0.1
    assert f"| {found.pace} | {found.simulated.throughput:.3f} for" in table([found])
    assert f"| {found.steady.p95:.3f} ({off:+.1%}) | yes |" in table([found])


def test_a_machine_whose_small_ticks_are_not_as_its_file_says_is_no_slower_for_that() -> None:
    """What the file has wrong of one bucket stays wrong: a pace that made up for it would hide it."""
    made = plan()
    told, real = (
        msgspec.structs.replace(MACHINE, ticks=(TickCosts(shape=SHAPE, seconds={2: small, 8: 0.024}),))
        for small in (0.012, 0.0156)
    )
    ticks: list[SimulatedTick] = []
    run = calibrated(made, exported(made, served(made, real, on_tick=ticks.append)), real)
    found = validate(watched(run, real, ticks), told)
    assert found.pace is not None
    assert found.pace.factors == pytest.approx([1.0] * len(found.pace.factors), abs=0.06)
