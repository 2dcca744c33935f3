"""diffusers' pipeline batched, against diffusers' pipeline called one by one."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from engine.embedded import model_directory, reference_portraits
from loadtests.peers.ask import Ask, BadAskError, parse_ask
from loadtests.peers.errors import PeerPictureError, PeerRefusedError
from loadtests.peers.openvino_pipeline import OpenVinoPipeline
from loadtests.peers.oracle import draw
from loadtests.peers.pipeline import (
    PeerPipeline,
    UnknownReferenceError,
    UnknownSamplerError,
    group_asks,
    to_png,
)
from loadtests.peers.process import free_port
from loadtests.peers.serving.plain import bind
from loadtests.peers.sides import PEERS, HttpTarget
from loadtests.peers.verify import decode, mean_difference

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


def test_what_is_unknown_is_named(pipeline: PeerPipeline) -> None:
    with pytest.raises(UnknownReferenceError, match="nobody"):
        pipeline.generate([ask(reference="nobody")])
    with pytest.raises(UnknownSamplerError, match="heun"):
        pipeline.generate([ask(sampler="heun")])


def test_another_picture_is_refused() -> None:
    black, grey = (Image.new("RGB", (8, 8), (level,) * 3) for level in (0, 3))
    assert mean_difference("x", to_png(black), decode(to_png(black))) == 0
    with pytest.raises(PeerPictureError, match=r"3\.0 levels off"):
        mean_difference("x", to_png(grey), decode(to_png(black)))


@pytest.fixture
def served(pipeline: PeerPipeline) -> Iterator[HttpTarget]:
    server = bind(pipeline, free_port())
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield HttpTarget("diffusers", server.server_port, PEERS["diffusers"])
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_plain_server_answers_with_the_pipelines_picture(
    served: HttpTarget, pipeline: PeerPipeline
) -> None:
    (picture,) = pipeline.generate([ask()])
    assert served.ask(ask()) == to_png(picture)
    with pytest.raises(PeerRefusedError, match="nobody"):
        served.ask(ask(reference="nobody"))


def test_an_ask_survives_its_body_and_names_what_is_wrong() -> None:
    import json

    body = json.loads(ask().to_json())
    assert parse_ask(body) == ask()
    with pytest.raises(BadAskError, match="steps must be of type int"):
        parse_ask({**body, "steps": "20"})
    with pytest.raises(BadAskError, match="size"):
        parse_ask({**body, "size": 1})
