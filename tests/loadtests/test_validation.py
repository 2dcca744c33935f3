"""From a run's report to the simulator's verdict: what `export` writes is what `simulate --validate` reads."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine.scheduling.simulate import Outcome
from loadtests.__main__ import main
from loadtests.runner.command_export import export
from loadtests.runner.plan import Plan, make_plan
from loadtests.runner.record import Record
from loadtests.runner.report import write_report
from loadtests.runner.scenario import Bursts, Cancel, Mix, Poisson, Stream
from loadtests.runner.target import Status
from loadtests.simulator.fleet import Fleet
from loadtests.simulator.machine import Machine
from loadtests.simulator.settings import FleetSettings
from loadtests.simulator.summary import unloaded_seconds
from loadtests.simulator.traffic import OpenLoop
from loadtests.simulator.validation import RealRun, validate
from tests.loadtests.building import SPEED, answer, report, scenario
from tests.simulator.builders import STAGED

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
    told = export(report(records, of=made.scenario))
    return msgspec.convert(msgspec.to_builtins(told), RealRun)


def served(made: Plan, machine: Machine) -> list[Record]:
    """The records of a run on a server that is exactly such a machine."""
    blank = [answer(one.number, due=one.at, latency=0.1) for one in made.requests]
    requests = [one.request(number) for number, one in enumerate(exported(made, blank).requests)]
    settings = FleetSettings(machine=machine, warmup_seconds=0.0, seconds=60.0)
    calls = Fleet(settings, known=made.known_people).run(OpenLoop(requests)).calls
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
    write_report(report(served(made, MACHINE), of=made.scenario), tmp_path / "test.json")
    assert main(["export", str(tmp_path / "test.json"), str(tmp_path / "test.run.json")]) == 0
    validation = ["simulate", "--machine", str(machine), "--validate", str(tmp_path / "test.run.json")]
    assert main(validation) == 0
    assert "(+0.0%)" in capsys.readouterr().out
    machine.write_bytes(msgspec.json.encode(msgspec.structs.replace(MACHINE, slowdown=1.5)))
    assert main(validation) == 1


def test_a_machine_of_another_speed_shows_in_the_unloaded_latency() -> None:
    made = make_plan(
        scenario(Stream(name="callers", arrivals=Poisson(per_second=2.0), mix=Mix(prompts=0))), 0, SPEED
    )
    records = served(made, MACHINE)
    run = msgspec.structs.replace(exported(made, records), unloaded=unloaded_seconds(MACHINE, steps=20))
    for machine, ratio in ((MACHINE, 1.0), (msgspec.structs.replace(MACHINE, slowdown=2.0), 1.9)):
        unloaded = validate(run, machine).unloaded
        assert unloaded is not None
        assert unloaded[0] / unloaded[1] == pytest.approx(ratio, abs=0.08)
