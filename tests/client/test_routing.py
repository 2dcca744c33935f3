"""Routing by reference, on several real servers behind one name whose addresses change."""

import asyncio
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterator

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2
from limner_client import AsyncClient, ChannelSettings, Client, RetryPolicy, Unavailable, routing
from limner_client.cli import main

from tests.client.fakes import FakeLimner, Refusal, serve
from tests.client.names import NameServer
from tests.waiting import until

DIGESTS = [hashlib.sha256(bytes([number])).hexdigest() for number in range(120)]
BY_REFERENCE = ChannelSettings(routing="reference", resolve_seconds=0.05)
PATIENCE = 20.0


class Fleet:
    """Servers on one port of different loopback addresses, which the name server tells."""

    def __init__(self) -> None:
        self.names = NameServer()
        self.fakes: dict[str, FakeLimner] = {}
        self.servers: dict[str, grpc.Server] = {}
        self.port = 0

    @property
    def target(self) -> str:
        return self.names.target(self.port)

    def add(self, address: str) -> None:
        fake = FakeLimner()
        fake.known.update(DIGESTS)
        # A connection's end makes clients look at the name again: listen.max_connection_age_seconds.
        options = (("grpc.max_connection_age_ms", 500), ("grpc.so_reuseport", 0))
        self.servers[address], bound = serve(fake, f"{address}:{self.port}", options)
        self.port = int(bound.rpartition(":")[2])
        self.fakes[address] = fake
        self.names.addresses.append(address)

    def kill(self, address: str) -> None:
        self.servers.pop(address).stop(None).wait()
        del self.fakes[address]

    def is_ready(self, address: str, ready: bool) -> None:
        status = health_pb2.HealthCheckResponse.ServingStatus.Value("SERVING" if ready else "NOT_SERVING")
        self.fakes[address].health.set("readiness", status)

    def owners(self, client: Client) -> dict[str, str]:
        """Ask about each reference until two rounds find the same replicas, and tell which.

        Connections end twice a second here: a call that meets one of them may be taken up by a neighbour.
        """
        before: dict[str, str] = {}
        end = time.monotonic() + PATIENCE
        while (found := self._asked(client)) != before:
            assert time.monotonic() < end
            before = found
        return found

    def _asked(self, client: Client) -> dict[str, str]:
        for fake in self.fakes.values():
            fake.calls.clear()
        for digest in DIGESTS:
            client.get_reference(digest)
        return {
            request.digest: address
            for address, fake in self.fakes.items()
            for request in fake.named("GetReference")
        }

    def close(self) -> None:
        for address in list(self.servers):
            self.kill(address)
        self.names.close()


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    fleet = Fleet()
    for last in (1, 2, 3):
        fleet.add(f"127.0.0.{last}")
    yield fleet
    fleet.close()


@pytest.fixture
def client(fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[Client]:
    """Give a client; a test's parameter is its retry policy."""
    retry = getattr(request, "param", None)
    with Client(fleet.target, channel=BY_REFERENCE, timeout=PATIENCE, retry=retry) as client:
        yield client


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {digest for digest in DIGESTS if before[digest] != after[digest]}


def test_a_reference_stays_where_it_is_and_all_replicas_have_some(fleet: Fleet, client: Client) -> None:
    first = fleet.owners(client)
    assert fleet.owners(client) == first
    counts = Counter(first.values())
    assert len(counts) == 3
    assert min(counts.values()) > len(DIGESTS) / 3 / 3


def test_every_client_finds_the_same_owners(fleet: Fleet, client: Client) -> None:
    first = fleet.owners(client)
    fleet.names.addresses.reverse()
    with Client(fleet.target, channel=BY_REFERENCE) as other:
        assert fleet.owners(other) == first


def test_the_order_of_addresses_decides_about_no_point_of_the_ring(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Three replicas cannot share seven points evenly, and each point is worth many references.
    monkeypatch.setattr(routing, "RING_POINTS", 7)
    with Client(fleet.target, channel=BY_REFERENCE) as client:
        first = fleet.owners(client)
    fleet.names.addresses.reverse()
    with Client(fleet.target, channel=BY_REFERENCE) as client:
        assert fleet.owners(client) == first


def test_an_upload_and_a_portrait_of_it_meet_one_replica(fleet: Fleet, client: Client) -> None:
    picture = b"a picture of someone"
    for _ in range(4):
        client.generate("a sailor", picture)
    (met,) = (fake for fake in fleet.fakes.values() if fake.calls)
    assert [name for name, _, _ in met.calls] == ["Generate", "UploadReference", *["Generate"] * 4]


def test_asyncio_goes_to_the_same_replicas(fleet: Fleet, client: Client) -> None:
    first = fleet.owners(client)

    async def ask() -> None:
        async with AsyncClient(fleet.target, channel=BY_REFERENCE) as other:
            await asyncio.gather(*(other.get_reference(digest) for digest in DIGESTS))

    asyncio.run(ask())
    twice = 0
    for digest, owner in first.items():
        asked = [request.digest for request in fleet.fakes[owner].named("GetReference")]
        twice += asked.count(digest) == 2
    assert twice >= len(DIGESTS) - 3  # all but calls that met the end of a connection


def test_calls_without_a_reference_are_spread(fleet: Fleet, client: Client) -> None:
    for _ in range(90):
        client.limits()
    assert all(len(fake.named("GetLimits")) >= 5 for fake in fleet.fakes.values())


def test_a_replica_that_joins_takes_about_its_share(fleet: Fleet, client: Client) -> None:
    before = fleet.owners(client)
    fleet.add("127.0.0.4")
    until(lambda: "127.0.0.4" in fleet.owners(client).values())
    after = fleet.owners(client)
    moved = changed(before, after)
    assert len(DIGESTS) / 4 / 3 < len(moved) < len(DIGESTS) / 4 * 2
    # The ring's points are shared by one replica more, so that some move between the old ones as well: of 39 runs a
    # quarter on average, and at most four of ten, as the ports have it. By a hash modulo their number two thirds would.
    assert sum(after[digest] == "127.0.0.4" for digest in moved) > 0.4 * len(moved)


def test_a_replica_that_died_moves_its_own_references_alone(fleet: Fleet, client: Client) -> None:
    before = fleet.owners(client)
    fleet.kill("127.0.0.2")
    after = fleet.owners(client)
    assert "127.0.0.2" not in after.values()
    assert changed(before, after) == {digest for digest in DIGESTS if before[digest] == "127.0.0.2"}


def test_a_call_in_flight_on_a_replica_that_dies_goes_to_the_next(fleet: Fleet, client: Client) -> None:
    owner = fleet.owners(client)[DIGESTS[0]]
    dying = fleet.fakes[owner]
    # New events: late callbacks of the calls before may still set the old ones.
    dying.started, dying.cancelled = threading.Event(), threading.Event()
    dying.hangs = True
    portraits: list[object] = []
    calling = threading.Thread(target=lambda: portraits.append(client.generate("a sailor", DIGESTS[0])))
    calling.start()
    assert dying.started.wait(PATIENCE)
    fleet.kill(owner)
    calling.join(PATIENCE)
    assert len(portraits) == 1
    keys = [
        fake.named("Generate")[0].idempotency_key
        for fake in [dying, *fleet.fakes.values()]
        if fake.named("Generate")
    ]
    assert len(keys) == 2
    assert len(set(keys)) == 1


@pytest.mark.parametrize("client", [RetryPolicy(initial_seconds=0.001)], indirect=True)
def test_a_reference_that_its_replica_has_no_room_for_gets_a_second_one(fleet: Fleet, client: Client) -> None:
    owners = fleet.owners(client)
    full = fleet.fakes["127.0.0.1"]
    mine = [digest for digest, owner in owners.items() if owner == "127.0.0.1"]
    seconds = []
    for _ in range(2):
        for fake in fleet.fakes.values():
            fake.calls.clear()
        for digest in mine:
            full.refusals.append(Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after=0.001))
            client.get_reference(digest)
        assert not full.refusals
        seconds.append(
            {
                address: [request.digest for request in fake.named("GetReference")]
                for address, fake in fleet.fakes.items()
                if fake is not full
            }
        )
    assert seconds[0] == seconds[1]
    assert all(seconds[0].values())
    assert fleet.owners(client) == owners


def test_a_replica_that_drains_hands_its_references_over_and_gets_them_back(
    fleet: Fleet, client: Client
) -> None:
    before = fleet.owners(client)
    fleet.is_ready("127.0.0.3", False)
    until(lambda: "127.0.0.3" not in fleet.owners(client).values())
    fleet.is_ready("127.0.0.3", True)
    until(lambda: fleet.owners(client) == before)


def test_a_name_that_has_lost_its_addresses_keeps_those_that_were_known(fleet: Fleet, client: Client) -> None:
    before = fleet.owners(client)
    fleet.names.addresses.clear()
    asked = fleet.names.asked
    until(lambda: fleet.names.asked > asked)
    assert fleet.owners(client) == before


def test_a_name_that_never_had_any_is_unavailable() -> None:
    names = NameServer()
    once = RetryPolicy(max_attempts=1)
    with Client(names.target(1), channel=BY_REFERENCE, retry=once) as client, pytest.raises(Unavailable):
        client.limits()
    names.close()


def test_no_ready_replica_is_unavailable_at_once(fleet: Fleet) -> None:
    for address in fleet.fakes:
        fleet.is_ready(address, False)
    once = RetryPolicy(max_attempts=1)
    with Client(fleet.target, channel=BY_REFERENCE, retry=once) as client, pytest.raises(Unavailable):
        client.get_reference(DIGESTS[0])


def test_closing_the_client_closes_its_connections(fleet: Fleet) -> None:
    with Client(fleet.target, channel=BY_REFERENCE) as client:
        fleet.owners(client)
        assert connections(fleet.port)
    until(lambda: not connections(fleet.port))


def connections(port: int) -> list[object]:
    """List this process' established connections to the port."""
    return [
        one
        for one in psutil.Process().net_connections("tcp")
        if one.status == psutil.CONN_ESTABLISHED and one.raddr.port == port
    ]


def test_the_command_routes_by_reference(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["delete", DIGESTS[0], "--server", fleet.target, "--routing", "reference"]
    assert main(command) == 0
    assert capsys.readouterr().out == "forgotten\n"


def test_an_unknown_routing_is_refused() -> None:
    with pytest.raises(ValueError, match="routing is one of any, reference"):
        ChannelSettings(routing="ring")  # type: ignore[arg-type]
