"""Where calls go: repeats of a reference to one replica, and a reference of one replica to all."""

from __future__ import annotations

import io
import time
from collections import Counter, defaultdict
from collections.abc import Sequence

import grpc
import pytest
from limner.v1.portrait_pb2 import CACHE_OUTCOME_HIT, PortraitSpec
from limner.v1.portrait_service_pb2 import GenerateRequest, GenerateResponse
from limner.v1.portrait_service_pb2_grpc import PortraitServiceStub
from limner.v1.reference_service_pb2 import UploadReferenceRequest
from limner.v1.reference_service_pb2_grpc import ReferenceServiceStub
from limner_client import Client
from PIL import Image

from tests.fleet.fleet import Fleet
from tests.fleet.load import Kind, Load
from tests.server.answers import refusal_of
from tests.server.imaging.pictures import file_of, scenery

REPEATS = 15
WRITTEN_BEHIND_SECONDS = 5.0


@pytest.mark.parametrize(
    ("callers", "pause", "home_share"),
    [
        pytest.param(4, 0.05, 0.9, id="with room to spare"),
        # All queue; the bound of Envoy's load balancing sends the crowd's surplus on, and that is what it is for.
        pytest.param(12, 0.0, 0.5, id="saturated"),
    ],
)
def test_repeats_of_a_reference_land_on_one_replica(
    fleet: Fleet, client: Client, people: Sequence[str], callers: int, pause: float, home_share: float
) -> None:
    calls: dict[str, str] = {}

    def generate(number: int) -> None:
        person = people[number % len(people)]
        calls[client.generate("a sailor", person, steps=2, guidance_scale=1.0).request_id] = person

    with Load([Kind(name="generate", make=generate)], callers=callers, pause=pause) as load:
        load.until(len(people) * (REPEATS + 1))
    assert load.failures == []
    landed: dict[str, Counter[str]] = defaultdict(Counter)
    for request_id, replica in fleet.homes(calls).items():
        landed[calls[request_id]][replica.name] += 1
    repeats = len(calls) - len(people)

    def share_of_repeats(replicas: int) -> float:
        """Of those that land on the replica, or the two, that a reference meets most; its first call is no repeat."""
        return sum(sum(n for _, n in one.most_common(replicas)) - 1 for one in landed.values()) / repeats

    by_home = Counter(one.most_common(1)[0][0] for one in landed.values())
    one, two = share_of_repeats(1), share_of_repeats(2)
    print(f"\n{repeats} repeats: {one:.1%} on one replica, {two:.1%} on two; homes {dict(by_home)}")
    assert one >= home_share
    assert two >= 0.9, "the surplus of a reference has a home of its own"
    # One replica for all would be faithful too.
    assert by_home.keys() == {replica.name for replica in fleet.replicas}


def test_a_reference_that_one_replica_was_given_generates_on_all(fleet: Fleet) -> None:
    """The replicas are addressed directly and by stubs, so that no client uploads anything again."""
    picture = file_of(scenery(), "PNG") + b"shared"
    with grpc.insecure_channel(fleet.replicas[0].target) as channel:
        uploaded = ReferenceServiceStub(channel).UploadReference(
            UploadReferenceRequest(image=picture), timeout=60
        )
    digest = uploaded.reference.digest
    spec = PortraitSpec(prompt="a sailor", reference_digest=digest, seed=7, steps=2, deterministic=True)
    images = []
    for replica in fleet.replicas:
        with grpc.insecure_channel(replica.target) as channel:
            answer = once_written(PortraitServiceStub(channel), GenerateRequest(portrait=spec))
        assert answer.summary.reference.digest == digest
        assert answer.summary.reference.cache_outcome == CACHE_OUTCOME_HIT
        images.append(Image.open(io.BytesIO(answer.images[0].data)).tobytes())
    assert len(set(images)) == 1


def once_written(portraits: PortraitServiceStub, request: GenerateRequest) -> GenerateResponse:
    """Generate; an upload is answered before it is written to Redis, so for a moment others may not know it."""
    ends = time.monotonic() + WRITTEN_BEHIND_SECONDS
    while True:
        try:
            return portraits.Generate(request, timeout=60)
        except grpc.RpcError as error:
            if refusal_of(error).reason != "REFERENCE_NOT_FOUND" or time.monotonic() > ends:
                raise
            time.sleep(0.05)


def test_a_reference_that_nobody_was_given_generates_on_none(fleet: Fleet) -> None:
    """The other test would pass with servers that take any digest."""
    spec = PortraitSpec(prompt="a sailor", reference_digest="0" * 64, steps=2)
    for replica in fleet.replicas:
        with grpc.insecure_channel(replica.target) as channel, pytest.raises(grpc.RpcError) as refused:
            PortraitServiceStub(channel).Generate(GenerateRequest(portrait=spec), timeout=60)
        assert refusal_of(refused.value).reason == "REFERENCE_NOT_FOUND"
