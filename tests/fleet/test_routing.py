"""Where calls go: repeats of a reference to one replica, and a reference of one replica to all."""

from __future__ import annotations

import io
import time
from collections import Counter
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

from tests.fleet.fleet import Fleet, Person
from tests.fleet.load import Kind, Load
from tests.fleet.replica import Replica
from tests.server.answers import refusal_of
from tests.server.imaging.pictures import file_of, scenery

REPEATS = 15
WRITTEN_BEHIND_SECONDS = 5.0


@pytest.mark.parametrize(
    ("callers", "pause", "least"),
    [
        pytest.param(4, 0.05, 0.9, id="with room to spare"),
        # All queue; the bound of Envoy's load balancing sends the crowd's surplus on, and that is what it is for.
        pytest.param(12, 0.0, 0.5, id="saturated"),
    ],
)
def test_repeats_of_a_reference_land_on_one_replica(
    fleet: Fleet, client: Client, people: Sequence[Person], callers: int, pause: float, least: float
) -> None:
    """That of its first call. Which one answered, the replicas' own logs tell."""
    calls: dict[str, Person] = {}

    def generate(number: int) -> None:
        person = people[number % len(people)]
        calls[client.generate("a sailor", person.picture, steps=2, guidance_scale=1.0).request_id] = person

    with Load([Kind(name="generate", make=generate)], callers=callers, pause=pause) as load:
        load.until(len(people) * REPEATS)
    assert load.failures == []
    landed: dict[str, Counter[Replica]] = {person.digest: Counter() for person in people}
    for request_id, replica in fleet.homes(calls).items():
        landed[calls[request_id].digest][replica] += 1
    at_home = sum(landed[person.digest][person.home] for person in people) / len(calls)
    on_two = sum(count for one in landed.values() for _, count in one.most_common(2)) / len(calls)
    print(f"\n{len(calls)} repeats: {at_home:.1%} at home, {on_two:.1%} there or at the second home")
    assert at_home >= least
    assert on_two >= 0.9, "the surplus of a reference has one home as well"


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
