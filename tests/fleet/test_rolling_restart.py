"""A rolling restart under load, one replica after the other, as a StatefulSet or an operator does it."""

from __future__ import annotations

from collections.abc import Mapping

from limner_client import Client, Completed

from tests.fleet.fleet import Fleet
from tests.fleet.load import Kind, Load
from tests.fleet.replica import Replica

CALLS = 2000
GENERATIONS = 500


def test_no_call_fails_while_all_replicas_are_restarted(
    fleet: Fleet, plain_client: Client, people: Mapping[str, Replica]
) -> None:
    """The callers never try again: what is saved, the drain and Envoy save."""

    digests = list(people)

    def generate(number: int) -> None:
        plain_client.generate("a sailor", digests[number % len(digests)], steps=2, guidance_scale=1.0)

    def stream(number: int) -> None:
        person = digests[number % len(digests)]
        with plain_client.stream("a sailor", person, steps=2, guidance_scale=1.0) as news:
            assert isinstance(list(news)[-1], Completed)

    kinds = [
        Kind(name="generate", make=generate),
        Kind(name="limits", make=lambda _: plain_client.limits()),
        Kind(name="generate", make=generate),
        Kind(name="info", make=lambda _: plain_client.info()),
        Kind(name="stream", make=stream),
    ]
    before = [replica.pid for replica in fleet.replicas]
    away = []
    with Load(kinds, callers=6, pause=0.1) as load:
        for replica in fleet.replicas:
            assert replica.stop() == 0
            away.append(fleet.start(replica))
        load.until(CALLS)
    print(
        f"\n{len(load.outcomes)} calls, {dict(load.counts())}; back after {[round(one, 1) for one in away]} s"
    )
    assert load.failures == []
    assert load.counts()["generate"] >= GENERATIONS
    assert all(pid != replica.pid for pid, replica in zip(before, fleet.replicas, strict=True))
    for replica in fleet.replicas:
        assert replica.lines("draining"), "it was told and drained"
        assert not replica.lines("drain_incomplete")
