"""diffusers' pipeline batched, against diffusers' pipeline called one by one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.embedded import model_directory, reference_portraits
from loadtests.peers.ask import Ask, BadAskError, parse_ask
from loadtests.peers.errors import PeerPictureError
from loadtests.peers.oracle import draw
from loadtests.peers.people import write_people
from loadtests.peers.pipelines.batched import (
    PeerPipeline,
    UnknownReferenceError,
    UnknownSamplerError,
    group_asks,
    to_png,
)
from loadtests.peers.pipelines.calibration import calibration_asks
from loadtests.peers.pipelines.inductor import InductorPipeline
from loadtests.peers.pipelines.lowered import LoweredPipeline
from loadtests.peers.pipelines.openvino import OpenVinoPipeline
from loadtests.peers.process import free_port
from loadtests.peers.serving.plain import bind
from loadtests.peers.target import PeerTarget, to_ask
from loadtests.peers.verify import decode, mean_difference
from loadtests.runner.errors import TargetError
from loadtests.runner.gallery import Gallery
from loadtests.runner.request import PlannedRequest
from loadtests.runner.target import Outcome, Status
from server.imaging.encode import encode_image
from server.imaging.formats import PictureFormat
from tests.loadtests.building import replaced

REFERENCES = next(iter(reference_portraits().values())).parent


def ask(**changes: object) -> Ask:
    settings: dict[str, object] = {
        "prompt": "a portrait, blue background",
        "reference": "ada",
        "steps": 2,
        "guidance_scale": 5.0,
        "sampler": "ddim",
        "ip_adapter_scale": 1.0,
        "seed": 3,
    }
    return Ask(**{**settings, **changes})  # type: ignore[arg-type]


MIXED = [
    ask(),
    ask(reference="goro", prompt="a portrait, smiling", seed=4),
    ask(ip_adapter_scale=0.5, seed=5),
    ask(reference="hana", seed=6),
]


@pytest.fixture(scope="module")
def pipeline() -> PeerPipeline:
    return PeerPipeline(model_directory(), REFERENCES)


def test_what_one_call_cannot_share_is_apart_and_in_order() -> None:
    assert group_asks(MIXED) == [[0, 1, 3], [2]]
    assert group_asks([ask(steps=3), ask(guidance_scale=4.0), ask(sampler="euler"), ask(steps=3)]) == [
        [0, 3],
        [1],
        [2],
    ]


def test_batched_pictures_are_those_of_diffusers_alone(pipeline: PeerPipeline) -> None:
    before = pipeline.calls
    pictures = pipeline.generate(MIXED)
    assert pipeline.calls - before == 2
    for each, picture in zip(MIXED, pictures, strict=True):
        alone = draw(each, model_directory(), REFERENCES)
        difference = np.abs(np.asarray(picture, np.int16) - np.asarray(alone, np.int16))
        assert difference.max() <= 2, each


def test_without_guidance_a_reference_is_one_row(pipeline: PeerPipeline) -> None:
    asks = [ask(guidance_scale=1.0), ask(guidance_scale=1.0, reference="goro")]
    for each, picture in zip(asks, pipeline.generate(asks), strict=True):
        mean_difference(
            "diffusers", to_png(picture), decode(to_png(draw(each, model_directory(), REFERENCES)))
        )


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_a_converted_pipeline_takes_another_scale_without_conversion(pipeline: PeerPipeline) -> None:
    converted = OpenVinoPipeline(model_directory(), REFERENCES, threads=1, precision="float32")
    for each in (MIXED[0], MIXED[2]):
        (ours,), (theirs,) = converted.generate([each]), pipeline.generate([each])
        assert np.abs(np.asarray(ours, np.int16) - np.asarray(theirs, np.int16)).max() <= 3
    (other,) = converted.generate([ask(seed=MIXED[2].seed)])
    assert np.abs(np.asarray(other, np.int16) - np.asarray(ours, np.int16)).max() > 3


def test_a_compiled_pipeline_takes_any_batch_and_scale_with_or_without_guidance(
    pipeline: PeerPipeline,
) -> None:
    # All but torch's code generator, which needs a compiler of C++ and minutes: export, dynamic rows, the calls.
    compiled = InductorPipeline(model_directory(), REFERENCES, dtype="float32", max_batch=4, backend="eager")
    for asks in (
        MIXED,
        MIXED[:1],
        [ask(guidance_scale=1.0)],
        [ask(guidance_scale=1.0), ask(guidance_scale=1.0, seed=9)],
    ):
        for ours, theirs in zip(compiled.generate(asks), pipeline.generate(asks), strict=True):
            assert np.abs(np.asarray(ours, np.int16) - np.asarray(theirs, np.int16)).max() <= 2


def test_calibration_records_the_calls_of_several_people_and_leaves_the_pipeline_as_it_was() -> None:
    lowered = LoweredPipeline(model_directory(), REFERENCES)
    asks = calibration_asks(lowered.people, 3, steps=2)
    assert len({one.reference for one in asks}) == 3
    unet, decoder = lowered.record([asks[:2], asks[2:]])
    assert [call[0].shape for call in unet] == [(4, 12, 16, 16)] * 2 + [(2, 12, 16, 16)] * 2
    assert [len(latents) for (latents,) in decoder] == [2, 1]
    lowered.generate(asks)
    assert len(unet) == 4


def test_what_is_unknown_is_named(pipeline: PeerPipeline) -> None:
    with pytest.raises(UnknownReferenceError, match="nobody"):
        pipeline.generate([ask(reference="nobody")])
    with pytest.raises(UnknownSamplerError, match="heun"):
        pipeline.generate([ask(sampler="heun")])


@pytest.mark.parametrize(
    ("side", "most"), [("ray:float32", 2), ("limner-engines:int8", 4), ("openvino:int8", 10)]
)
def test_another_picture_is_refused(side: str, most: int) -> None:
    black, near, other = (Image.new("RGB", (8, 8), (level,) * 3) for level in (0, most, most + 1))
    assert mean_difference(side, to_png(black), decode(to_png(black))) == 0
    assert mean_difference(side, to_png(near), decode(to_png(black))) == most
    with pytest.raises(PeerPictureError, match=rf"{most + 1}\.0 levels off, more than {most}"):
        mean_difference(side, to_png(other), decode(to_png(black)))


def test_a_picture_that_cannot_be_decoded_is_refused() -> None:
    png = to_png(Image.new("RGB", (64, 64), (9, 99, 9)))
    for damaged in (b"", b"<html>", png[:40]):
        with pytest.raises(PeerPictureError, match="cannot be decoded"):
            mean_difference("x", damaged, decode(png))


def test_peers_code_png_as_limner_does(pipeline: PeerPipeline) -> None:
    (picture,) = pipeline.generate([ask()])
    assert to_png(picture) == encode_image(np.asarray(picture), PictureFormat.PNG)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[PeerTarget]:
    write_people(Gallery(0, size=64), tmp_path)
    pipeline = PeerPipeline(model_directory(), tmp_path)
    server = bind(pipeline, free_port())
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield PeerTarget("diffusers", f"http://127.0.0.1:{server.server_port}/predict")
    server.shutdown()
    server.server_close()
    thread.join()


async def test_the_plain_server_answers_the_runner_with_the_pipelines_picture(
    served: PeerTarget, tmp_path: Path
) -> None:
    request = PlannedRequest(
        number=0, at=0.0, stream="callers", phase="saturated", prompt="a portrait", seed=3, person=2, steps=2
    )
    (picture,) = PeerPipeline(model_directory(), tmp_path).generate([to_ask(request)])
    async with served:
        await served.prepare([2])
        assert await served.call(request) == Outcome(status=Status.OK, images=1, pictures=(to_png(picture),))
        heun = await served.call(replaced(request, sampler="heun"))
        assert (heun.status, heun.reason) == (Status.FAILED, "answered 400")
        assert "heun" in heun.message
        several = await served.call(replaced(request, images=4))
        assert (several.status, several.message) == (Status.FAILED, "images must be 1, not 4")
        with pytest.raises(TargetError, match="0 to 7, not 8"):
            await served.prepare([1, 8])


async def test_a_peer_that_is_gone_is_a_failed_call() -> None:
    request = PlannedRequest(
        number=0, at=0.0, stream="callers", phase="saturated", prompt="a portrait", seed=3, person=2
    )
    async with PeerTarget("ray", f"http://127.0.0.1:{free_port()}/") as target:
        outcome = await target.call(request)
    assert outcome.status is Status.FAILED
    assert "gave no answer" in outcome.reason


def test_an_ask_survives_its_body_and_names_what_is_wrong() -> None:
    import json

    body = json.loads(ask().to_json())
    assert parse_ask(body) == ask()
    with pytest.raises(BadAskError, match="steps must be of type int"):
        parse_ask({**body, "steps": "20"})
    with pytest.raises(BadAskError, match="size"):
        parse_ask({**body, "size": 1})
