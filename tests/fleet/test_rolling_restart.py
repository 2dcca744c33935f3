"""A rolling restart under load, one replica after the other, as a StatefulSet or an operator does it."""

from __future__ import annotations

from collections.abc import Sequence

from limner_client import Client, Completed

from tests.fleet.fleet import Fleet, Person
from tests.fleet.load import Kind, Load

CALLS = 2000
GENERATIONS = 500


def test_no_call_fails_while_all_replicas_are_restarted(
    fleet: Fleet, plain_client: Client, people: Sequence[Person]
) -> None:
    """The callers never try again: what is saved, the drain and Envoy save."""

    uploaded_again: list[str] = []

    def generate(number: int) -> None:
        person = people[number % len(people)]
        portrait = plain_client.generate("a sailor", person.picture, steps=2, guidance_scale=1.0)
        if portrait.upload_outcome is not None:
            uploaded_again.append(person.digest)

    def stream(number: int) -> None:
        person = people[number % len(people)].picture
        # Longer, so that some are under way at each SIGTERM: of these nobody but the drain takes care.
        with plain_client.stream("a sailor", person, steps=8, guidance_scale=1.0) as news:
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
        f"\n{len(load.outcomes)} calls, {dict(load.counts())}, {len(uploaded_again)} references uploaded again; "
        f"back after {[round(one, 1) for one in away]} s"
    )
    assert load.failures == []
    assert load.counts()["generate"] >= GENERATIONS
    assert all(pid != replica.pid for pid, replica in zip(before, fleet.replicas, strict=True))
    for replica in fleet.replicas:
        assert replica.lines("draining"), "it was told and drained"
        assert not replica.lines("drain_incomplete")
