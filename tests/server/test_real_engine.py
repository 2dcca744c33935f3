"""The server with the real engine process, on a tiny model."""

from __future__ import annotations

import io
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from limner.v1 import portrait_pb2
from limner.v1.model_service_pb2 import ListModelsRequest
from limner.v1.model_service_pb2_grpc import ModelServiceStub
from limner.v1.portrait_pb2 import PortraitSpec
from limner.v1.portrait_service_pb2 import GenerateRequest, GenerateStreamRequest
from limner.v1.portrait_service_pb2_grpc import PortraitServiceStub
from PIL import Image

from tests.server.answers import refusal_of
from tests.server.imaging.pictures import file_of, scenery
from tests.server.processes import PATIENCE, Process, generate, is_alive, process
from tests.tinymodels import build_tiny_model, build_tiny_xl

PNG = file_of(scenery(), "PNG")

HOPELESS_SECONDS = 2.0

Real = tuple[Process, grpc.Channel]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    folder = tmp_path_factory.mktemp("real")
    build_tiny_model(folder / "model")
    flags = ["--model", str(folder / "model"), "--engine-threads", "1", "--engine-buckets", "1,2,4,8"]
    with process(folder, *flags, module="server") as server, server.channel() as channel:
        server.until_ready()
        yield server, channel
        assert server.stop() == 0


def picture(answer: Any) -> bytes:
    data: bytes = answer.images[0].data
    return data


def test_every_sampler_makes_a_portrait_of_a_reference(real: Real) -> None:
    _, channel = real
    (model,) = ModelServiceStub(channel).ListModels(ListModelsRequest()).models
    assert len(model.samplers) == 7
    pictures = set()
    for limits in model.samplers:
        answer = generate(
            channel, reference_image=PNG, sampler=limits.sampler, steps=4, seed=1, image_count=2
        )
        assert [image.seed for image in answer.images] == [1, 2]
        pictures.add(picture(answer))
    assert len(pictures) == len(model.samplers)
    assert answer.summary.reference.cache_outcome == portrait_pb2.CACHE_OUTCOME_HIT
    assert answer.summary.timings.reference_seconds < 0.1
    assert answer.summary.timings.denoise_seconds > 0


def test_the_stream_with_previews(real: Real) -> None:
    _, channel = real
    request = GenerateStreamRequest(portrait=PortraitSpec(prompt="a sailor", steps=6), preview_interval=2)
    kinds = [
        news.WhichOneof("event")
        for news in PortraitServiceStub(channel).GenerateStream(request, timeout=PATIENCE)
    ]
    assert {"queued", "progress", "preview", "image"} < set(kinds)
    assert kinds[-1] == "completed"
    assert kinds.count("progress") <= 6


def test_a_replay_gives_the_same_pictures(real: Real) -> None:
    server, channel = real
    specs = [{"prompt": "a sailor", "seed": seed, "steps": 60, "deterministic": True} for seed in range(6)]
    with ThreadPoolExecutor(6) as threads:
        undisturbed = [
            picture(answer) for answer in threads.map(lambda spec: generate(channel, **spec), specs)
        ]
        lost, started = len(server.lines("engine_lost")), jobs_started(server)
        again = [threads.submit(generate, channel, **spec) for spec in specs]
        # Not all six: on a busy machine the first may have its picture before the last is let in.
        server.until(lambda: jobs_started(server) > started)
        engine = server.engine_pid()
        os.kill(engine, signal.SIGKILL)
        assert [pixels(picture(answer.result())) for answer in again] == [
            pixels(data) for data in undisturbed
        ]
    assert server.engine_pid() != engine
    assert len(server.lines("engine_lost")) == lost + 1
    assert server.lines("engine_lost")[-1]["to_replay"] > 0


def jobs_started(server: Process) -> float:
    """Return how many jobs had their first tick so far."""
    match = re.search(r"^limner_queue_wait_seconds_count (\S+)$", server.metrics(), re.MULTILINE)
    assert match is not None
    return float(match[1])


def pixels(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).tobytes()


def test_a_deadline_that_cannot_be_met_is_refused_at_once(real: Real) -> None:
    server, channel = real
    stub = PortraitServiceStub(channel)
    # So much work waits that the deadline is hopeless, and is far enough that the refusal comes first. An idle
    # engine could meet it, so the refusal says when to come back.
    small = PortraitSpec(prompt="a sailor", steps=2, image_count=1)
    spec = PortraitSpec(prompt="a sailor", steps=100, image_count=8)
    ahead = [stub.Generate.future(GenerateRequest(portrait=spec)) for _ in range(100)]
    server.until(lambda: images_known(server) >= 400)
    try:
        with pytest.raises(grpc.RpcError) as caught:
            stub.Generate(GenerateRequest(portrait=small), timeout=HOPELESS_SECONDS)
    finally:
        for call in ahead:
            call.cancel()
    refusal = refusal_of(caught.value)  # type: ignore[arg-type]
    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "DEADLINE_INFEASIBLE")
    assert refusal.retry_seconds is not None
    server.until(lambda: server.in_flight() == 0)


def test_two_models_of_different_families_in_one_server(tmp_path: Path) -> None:
    build_tiny_model(tmp_path / "sd")
    build_tiny_xl(tmp_path / "xl")
    flags = ["--model", f"{tmp_path / 'sd'}", "--engine-models", f"wide={tmp_path / 'xl'}"]
    flags += ["--engine-backend", "torch", "--engine-threads", "1", "--engine-buckets", "1,2"]
    with process(tmp_path, *flags, module="server") as server, server.channel() as channel:
        server.until_ready()
        models = ModelServiceStub(channel).ListModels(ListModelsRequest()).models
        assert [(model.name, model.family) for model in models] == [("sd", "sd1"), ("wide", "sdxl")]
        asked = {"seed": 1, "steps": 3, "deterministic": True}
        answers = [generate(channel, reference_image=PNG, model=name, **asked) for name in ("", "wide", "sd")]
        assert [answer.summary.parameters.model for answer in answers] == ["sd", "wide", "sd"]
        default, wide, named = map(picture, answers)
        assert pixels(default) == pixels(named) != pixels(wide)
        # One upload for each, since their encoders differ, and none after that.
        digest = answers[0].summary.reference.digest
        for name in ("sd", "wide"):
            again = generate(channel, reference_digest=digest, model=name, **asked)
            assert again.summary.reference.cache_outcome == portrait_pb2.CACHE_OUTCOME_HIT
        pids = {line["engine"]: line["pid"] for line in server.lines("engine_started")}
        assert sorted(pids) == ["0", "1"]
        assert server.stop() == 0
        assert not any(is_alive(pid) for pid in pids.values())


def test_two_engines_of_a_model_draw_the_same_pictures_and_one_goes_on_alone(tmp_path: Path) -> None:
    build_tiny_model(tmp_path / "sd")
    flags = ["--model", f"{tmp_path / 'sd'}", "--engine-devices", "cpu,cpu", "--engine-threads", "1"]
    flags += ["--engine-buckets", "1,2"]
    with process(tmp_path, *flags, module="server") as server, server.channel() as channel:
        server.until_ready()
        pids = {line["engine"]: line["pid"] for line in server.lines("engine_started")}
        assert sorted(pids) == ["0", "1"]
        spec: dict[str, Any] = {"prompt": "a sailor", "seed": 7, "steps": 40, "deterministic": True}
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda _: generate(channel, **spec), range(4)))
            assert len({pixels(picture(answer)) for answer in answers}) == 1
            assert min(busy_seconds(server)) > 0
            started = jobs_started(server)
            again = [threads.submit(generate, channel, **spec) for _ in range(4)]
            server.until(lambda: jobs_started(server) >= started + 2)
            os.kill(pids["0"], signal.SIGKILL)
            assert {pixels(picture(answer.result())) for answer in again} == {pixels(picture(answers[0]))}
        assert server.stop() == 0


def busy_seconds(server: Process) -> list[float]:
    """Return how long each engine has worked."""
    found = re.findall(r"^limner_engine_busy_seconds_total\{.*\} (\S+)$", server.metrics(), re.MULTILINE)
    return [float(value) for value in found]


def images_known(server: Process) -> float:
    """Return how many images wait or run in the engine."""
    found = re.findall(r"^limner_(?:queue_depth|images_running)\{.*\} (\S+)$", server.metrics(), re.MULTILINE)
    return sum(map(float, found))


def test_cancelled_calls_leave_no_rows(real: Real) -> None:
    server, channel = real
    stub = PortraitServiceStub(channel)
    spec = PortraitSpec(prompt="x", steps=100, image_count=8)
    calls = [stub.Generate.future(GenerateRequest(portrait=spec)) for _ in range(20)]
    server.until(lambda: server.in_flight() >= 10)
    for call in calls:
        call.cancel()
    server.until(lambda: server.in_flight() == 0)
    generate(channel, steps=2)
    server.until(
        lambda: (
            "\nlimner_images_running 0.0" in server.metrics()
            or re.search(r"limner_images_running\{.*\} 0.0", server.metrics())
        )
    )
