"""The Open Inference Protocol in front of the native API, with a fake engine."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha import reflection_pb2
from limner.kserve import open_inference_grpc_pb2 as oip
from limner.kserve.open_inference_grpc_pb2_grpc import GRPCInferenceServiceStub
from limner.v1.portrait_pb2 import PortraitSpec, WeightedReference
from limner.v1.portrait_service_pb2 import GenerateRequest
from PIL import Image

from server.api.checks import MAX_FINDINGS
from server.config.optional import KserveOptions
from server.kserve import servicer
from server.kserve.request import DIGEST, IDEMPOTENCY_KEY, IMAGE, WEIGHT
from server.kserve.response import pixels_of
from server.kserve.settings import APART, SETTINGS
from tests.server.answers import Refusal, refused
from tests.server.fake_engine import Script, ready_message
from tests.server.imaging.pictures import file_of, scenery
from tests.server.running import Serving, run_server

PNG, OTHER = file_of(scenery(), "PNG"), file_of(scenery(width=80), "PNG")
TYPED = {
    "BOOL": "bool_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    async with run_server(kserve=KserveOptions(enabled=True)) as running:
        yield running


def stub(serving: Serving) -> GRPCInferenceServiceStub:
    return GRPCInferenceServiceStub(serving.channel)


def asked(
    *outputs: str, parameters: dict[str, Any] | None = None, **inputs: tuple[str, list[Any]]
) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(id="7")
    for name, (datatype, values) in ({"prompt": ("BYTES", [b"a sailor"])} | inputs).items():
        contents = oip.InferTensorContents(**{TYPED[datatype]: values})
        request.inputs.add(name=name, datatype=datatype, shape=[len(values)], contents=contents)
    for name, value in (parameters or {}).items():
        kind = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}[
            type(value)
        ]
        setattr(request.parameters[name], kind, value)
    for output in outputs:
        request.outputs.add(name=output)
    return request


def elements(raw: bytes) -> list[bytes]:
    found = []
    while raw:
        length = int.from_bytes(raw[:4], "little")
        found.append(raw[4 : 4 + length])
        raw = raw[4 + length :]
    return found


def outputs(response: oip.ModelInferResponse) -> dict[str, Any]:
    """Read a response as a client does."""
    found: dict[str, Any] = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        match output.datatype:
            case "BYTES":
                found[output.name] = elements(raw)
                assert list(output.shape) == [len(found[output.name])]
            case "UINT8" | "INT64":
                kind = {"UINT8": "<u1", "INT64": "<i8"}[output.datatype]
                found[output.name] = np.frombuffer(raw, kind).reshape(output.shape)
    return found


async def infer_refused(serving: Serving, request: oip.ModelInferRequest) -> Refusal:
    return await refused(stub(serving).ModelInfer(request))


def picture_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


async def test_the_picture_is_the_native_apis(serving):
    fields = {"seed": 5, "steps": 3, "guidance_scale": 2.7, "ip_adapter_scale": 0.7}
    spec = PortraitSpec(prompt="a sailor", reference_image=PNG, image_count=2, **fields)
    native = await serving.portraits.Generate(GenerateRequest(portrait=spec))
    request = asked(
        reference_image=("BYTES", [PNG]),
        image_count=("INT32", [2]),
        seed=("INT64", [5]),
        steps=("UINT8", [3]),
        guidance_scale=("FP64", [2.7]),
        ip_adapter_scale=("FP32", [0.7]),
    )
    response = await stub(serving).ModelInfer(request)
    assert (response.model_name, response.model_version, response.id) == ("fake", "5eed" * 16, "7")
    found = outputs(response)
    assert list(found) == ["image", "pixels", "seed", "summary"]
    assert found["seed"].tolist() == [5, 6]
    for ours, theirs in zip(found["image"], native.images, strict=True):
        assert (picture_of(ours) == picture_of(theirs.data)).all()
    assert found["pixels"].shape == (2, 64, 64, 3)
    assert (found["pixels"][1] == picture_of(native.images[1].data)).all()
    # The same job but for its name.
    ours, theirs = serving.script.submitted[1], serving.script.submitted[0]
    assert {k: getattr(ours, k) for k in ours.__struct_fields__ if k != "job_id"} == {
        k: getattr(theirs, k) for k in theirs.__struct_fields__ if k != "job_id"
    }
    summary = json.loads(found["summary"][0])
    assert summary["parameters"]["guidance_scale"] == 2.7
    assert summary["reference"]["cache_outcome"] == "CACHE_OUTCOME_HIT"
    assert response.parameters["task_id"].string_param == ours.job_id


async def test_raw_contents_say_the_same(serving):
    request = oip.ModelInferRequest()
    raw = {
        "prompt": ("BYTES", b"\x08\0\0\0a sailor"),
        "seed": ("INT64", np.array([5], "<i8").tobytes()),
        "guidance_scale": ("FP16", np.array([2.5], "<f2").tobytes()),
        "deterministic": ("BOOL", b"\1"),
        "reference_image": ("BYTES", len(PNG).to_bytes(4, "little") + PNG),
    }
    for name, (datatype, data) in raw.items():
        request.inputs.add(name=name, datatype=datatype, shape=[1, 1])
        request.raw_input_contents.append(data)
    await stub(serving).ModelInfer(request)
    (submit,) = serving.script.submitted
    assert (submit.prompt, submit.seeds, submit.guidance_scale) == ("a sailor", (5,), 2.5)
    assert submit.deterministic
    assert serving.script.encoded == 1


async def test_settings_may_be_parameters(serving):
    parameters = {
        "seed": 5,
        "steps": 3,
        "guidance_scale": 2.5,
        "guidance_rescale": "0.25",
        "sampler": "euler_ancestral",
        "priority": "batch",
        "deterministic": True,
        "width": "96",
    }
    await stub(serving).ModelInfer(asked("seed", parameters=parameters))
    (submit,) = serving.script.submitted
    assert (submit.seeds, submit.steps, submit.sampler) == ((5,), 3, "euler_ancestral")
    assert (submit.guidance_scale, submit.guidance_rescale) == (2.5, 0.25)
    assert (submit.priority, submit.deterministic, submit.width) == (1, True, 96)


async def test_only_the_outputs_that_are_wanted_come(serving):
    response = await stub(serving).ModelInfer(asked("seed", "image", parameters={"format": "JPEG"}))
    found = outputs(response)
    assert list(found) == ["seed", "image"]
    assert found["image"][0].startswith(b"\xff\xd8")


async def test_pictures_are_decoded_in_the_pool_and_only_where_their_pixels_are_wanted(serving, monkeypatch):
    threads = []

    def watched(answer):
        threads.append(threading.current_thread().name)
        return pixels_of(answer)

    monkeypatch.setattr(servicer, "pixels_of", watched)
    await stub(serving).ModelInfer(asked("image", "seed", "summary"))
    assert threads == []
    await stub(serving).ModelInfer(asked("pixels"))
    assert [name.rpartition("_")[0] for name in threads] == ["limner-imaging"]


async def test_references_in_every_way(serving):
    weights = ("FP32", [1.0, 0.5])
    await stub(serving).ModelInfer(asked("seed", reference_image=("BYTES", [PNG, OTHER])))
    found = outputs(
        await stub(serving).ModelInfer(
            asked("summary", reference_image=("BYTES", [PNG, OTHER]), reference_weight=weights)
        )
    )
    digests = [use["digest"] for use in json.loads(found["summary"][0])["references"]]
    by_digest = ("BYTES", [digest.encode() for digest in digests])
    await stub(serving).ModelInfer(asked("seed", reference_digest=by_digest, reference_weight=weights))
    await stub(serving).ModelInfer(asked("seed", parameters={"reference_digest": digests[0]}))
    references = [WeightedReference(image=PNG), WeightedReference(image=OTHER, weight=0.5)]
    await serving.portraits.Generate(
        GenerateRequest(portrait=PortraitSpec(prompt="a sailor", references=references))
    )
    told = [submit.reference_weights for submit in serving.script.submitted]
    assert told == [(1.0, 1.0), (1.0, 0.5), (1.0, 0.5), (1.0,), (1.0, 0.5)]
    assert serving.script.encoded == 2
    assert (serving.script.tensors[1] == serving.script.tensors[4]).all()


async def test_an_idempotency_key_works_here_too(serving):
    request = asked("image", parameters={"idempotency_key": "once"})
    first, second = [await stub(serving).ModelInfer(request) for _ in range(2)]
    assert first == second
    assert len(serving.script.submitted) == 1


def raw_request(datatype: str, shape: list[int], raw: bytes) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(raw_input_contents=[raw])
    request.inputs.add(name="prompt", datatype=datatype, shape=shape)
    return request


def with_input_parameter() -> oip.ModelInferRequest:
    request = asked()
    request.inputs[0].parameters["shared_memory_region"].string_param = "x"
    return request


def with_raw_beside() -> oip.ModelInferRequest:
    request = asked()
    request.raw_input_contents.append(b"\x01\0\0\0a")
    return request


def with_output_parameter() -> oip.ModelInferRequest:
    request = asked("image")
    request.outputs[0].parameters["classification"].int64_param = 1
    return request


def with_shape(shape: list[int]) -> oip.ModelInferRequest:
    request = asked()
    request.inputs[0].shape[:] = shape
    return request


def twice() -> oip.ModelInferRequest:
    request = asked()
    request.inputs.append(request.inputs[0])
    return request


FP = ("FP32", [1.0])


@pytest.mark.parametrize(
    ("request_", "field", "problem"),
    [
        (asked(hat=FP), "inputs[hat]", "no meaning here; the limit is one of prompt, negative_prompt"),
        (asked(parameters={"hat": 1}), "parameters[hat]", "no meaning here"),
        (asked(steps=("INT32", [1, 2])), "inputs[steps]", "has 2 elements; the limit is 1"),
        (asked(steps=("FP32", [1.5])), "inputs[steps]", "is 1.5; the limit is a whole number"),
        (asked(steps=("FP32", [float("nan")])), "inputs[steps]", "is nan"),
        (asked(steps=("INT64", [1 << 40])), "inputs[steps]", "the limit is 32 bits"),
        (asked(seed=("UINT64", [1 << 63])), "inputs[seed]", "the limit is 64 bits"),
        (asked(steps=("BYTES", [b"many"])), "inputs[steps]", "is no number"),
        (asked(parameters={"steps": True}), "parameters[steps]", "is no number"),
        (asked(deterministic=("INT32", [1])), "inputs[deterministic]", "is no boolean"),
        (asked(prompt=FP), "inputs[prompt]", "is no text"),
        (asked(prompt=("BYTES", [b"\xff"])), "inputs[prompt]", "is not UTF-8: byte 0xff at offset 0"),
        (asked(sampler=("BYTES", [b"magic"])), "inputs[sampler]", "the limit is one of DDIM, EULER"),
        (asked(parameters={"prompt": "again"}), "parameters[prompt]", "together with an input of its name"),
        (asked(reference_image=FP), "inputs[reference_image]", "is FP32; the limit is BYTES"),
        (
            asked(reference_image=("BYTES", [PNG]), reference_digest=("BYTES", [b"a"])),
            "inputs[reference_digest]",
            "together with reference_image",
        ),
        (
            asked(reference_image=("BYTES", [PNG]), reference_weight=("FP32", [1.0, 1.0])),
            "inputs[reference_weight]",
            "has 2 elements; the limit is 1",
        ),
        (asked(reference_weight=FP), "inputs[reference_weight]", "has 1 elements; the limit is 0"),
        (
            asked(reference_image=("BYTES", [PNG]), reference_weight=("BYTES", [b"1"])),
            "inputs[reference_weight]",
            "is BYTES; the limit is FP32",
        ),
        (asked("painting"), "outputs[painting]", "the limit is one of image, pixels, seed, summary"),
        (asked("image", "image"), "outputs[image]", "more than once"),
        (with_output_parameter(), "outputs[image]", "has parameters"),
        (with_input_parameter(), "inputs[prompt]", "has parameters (shared_memory_region)"),
        (with_raw_beside(), "inputs[prompt]", "contents beside raw_input_contents"),
        (with_shape([2]), "inputs[prompt]", "has 1 elements in contents.bytes_contents; the limit is 2"),
        (with_shape([-1]), "inputs[prompt]", "has the shape [-1]"),
        (with_shape([1 << 40, 1 << 40]), "inputs[prompt]", "the limit is 1 to 16 elements"),
        (with_shape([1] * 9), "inputs[prompt]", "has 9 dimensions; the limit is 8"),
        (asked(*["image"] * 5), "outputs", "has 5 elements; the limit is 4"),
        (asked(parameters={str(n): 1 for n in range(40)}), "parameters", "has 40 elements; the limit is"),
        (asked(**{f"x{n}": FP for n in range(40)}), "inputs", "has 41 elements; the limit is"),
        (asked(parameters={"steps": "9" * 400}), "parameters[steps]", "is inf; the limit is a whole number"),
        (asked(parameters={"steps": "9" * 401}), "parameters[steps]", "is no number"),
        (asked(seed=("BYTES", [b"9" * 30])), "inputs[seed]", "is 1e+30; the limit is 64 bits"),
        (
            asked(parameters={"guidance_scale": "9" * 400}),
            "portrait.guidance_scale",
            "is inf, not a finite number",
        ),
        (with_shape([0]), "inputs[prompt]", "the limit is 1 to 16 elements"),
        (twice(), "inputs[prompt]", "more than once"),
        (raw_request("TEXT", [1], b""), "inputs[prompt]", "has the datatype 'TEXT'"),
        (raw_request("BYTES", [1], b"\xff\0\0\0a"), "inputs[prompt]", "has 5 raw bytes"),
        (raw_request("BYTES", [1], b"\0\0"), "inputs[prompt]", "has 2 raw bytes"),
        (raw_request("BYTES", [2], b"\0\0\0\0"), "inputs[prompt]", "not 2 elements of BYTES"),
        (raw_request("FP32", [1], b"\0\0\0\0\0"), "inputs[prompt]", "has 5 raw bytes"),
        (
            oip.ModelInferRequest(raw_input_contents=[b""]),
            "raw_input_contents",
            "has 1 tensors for 0 inputs",
        ),
    ],
)
async def test_what_is_no_request_is_named(serving, request_, field, problem):
    refusal = await infer_refused(serving, request_)
    assert (refusal.code, refusal.reason, refusal.domain) == (
        "INVALID_ARGUMENT",
        "INVALID_FIELD",
        "limner.v1",
    )
    assert problem in refusal.violations[field]


async def test_much_that_is_wrong_is_told_in_an_answer_that_arrives(serving):
    given = {f"{n:02}" + "é%" * 60: FP for n in range(20)}
    refusal = await infer_refused(serving, asked(*["hat"] * 4, **given))
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    told = len(refusal.violations)
    assert 3 < told <= MAX_FINDINGS
    assert int(refusal.metadata["more_violations"]) == 24 - told
    assert f"and {24 - 3} more" in refusal.text


async def test_values_are_held_to_the_native_limits(serving):
    wrong = {"steps": 1000, "guidance_scale": float("inf"), "width": 17}
    refusal = await infer_refused(serving, asked(prompt=("BYTES", [b" "]), parameters=wrong))
    native = await refused(
        serving.portraits.Generate(GenerateRequest(portrait=PortraitSpec(prompt=" ", **wrong)))
    )
    assert refusal.violations == native.violations
    assert set(refusal.violations) == {
        "portrait.prompt",
        "portrait.steps",
        "portrait.guidance_scale",
        "portrait.width",
    }
    assert (await infer_refused(serving, oip.ModelInferRequest())).violations.keys() == {"portrait.prompt"}
    broken = await infer_refused(serving, asked(reference_image=("BYTES", [b"no picture"])))
    assert broken.reason == "INVALID_IMAGE"
    unknown = await infer_refused(serving, asked(reference_digest=("BYTES", [b"0" * 64])))
    assert (unknown.code, unknown.reason) == ("NOT_FOUND", "REFERENCE_NOT_FOUND")


async def test_models_are_found_by_name_and_version(serving):
    good = oip.ModelMetadataRequest(name="fake", version="5eed" * 16)
    assert (await stub(serving).ModelMetadata(good)).name == "fake"
    assert (await stub(serving).ModelReady(oip.ModelReadyRequest(name="fake", version="5eed" * 16))).ready
    for call, field in (
        (stub(serving).ModelMetadata(oip.ModelMetadataRequest(name="other")), "name"),
        (stub(serving).ModelMetadata(oip.ModelMetadataRequest(name="fake", version="1")), "version"),
        (stub(serving).ModelReady(oip.ModelReadyRequest(name="other")), "name"),
        (stub(serving).ModelReady(oip.ModelReadyRequest(name="fake", version="1")), "version"),
        (stub(serving).ModelInfer(oip.ModelInferRequest(model_name="other")), "model_name"),
        (stub(serving).ModelInfer(oip.ModelInferRequest(model_version="1")), "model_version"),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == ("NOT_FOUND", "MODEL_NOT_FOUND")
        assert refusal.violations.keys() == {field}


async def test_metadata_lists_every_tensor(serving):
    server = await stub(serving).ServerMetadata(oip.ServerMetadataRequest())
    assert (server.name, list(server.extensions)) == ("limner", [])
    model = await stub(serving).ModelMetadata(oip.ModelMetadataRequest())
    assert (model.name, list(model.versions), model.platform) == ("fake", ["5eed" * 16], "limner_sd1")
    inputs = {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in model.inputs}
    assert inputs["prompt"] == ("BYTES", [1])
    assert inputs["seed"] == ("INT64", [1])
    assert inputs["guidance_scale"] == ("FP32", [1])
    assert inputs["reference_image"] == ("BYTES", [-1])
    told = {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in model.outputs}
    assert told["pixels"] == ("UINT8", [-1, -1, -1, 3])
    assert model.properties["adapters"] == "base,plus"


async def test_a_model_without_an_adapter_lists_no_references():
    script = Script(ready=ready_message(adapters=()))
    async with run_server(script, kserve=KserveOptions(enabled=True)) as serving:
        model = await stub(serving).ModelMetadata(oip.ModelMetadataRequest())
        assert not [tensor.name for tensor in model.inputs if tensor.name.startswith("reference_i")]


def test_no_setting_of_a_portrait_is_left_behind():
    plain = {
        field.name for field in PortraitSpec.DESCRIPTOR.fields if field.type != FieldDescriptor.TYPE_MESSAGE
    }
    assert set(SETTINGS) == plain - APART


def test_the_documentation_lists_every_input_with_its_datatype():
    page = (Path(__file__).parents[3] / "docs/kserve.md").read_text()
    table = page.partition("| input | datatype | |")[2].partition("\n\n")[0]
    told = {}
    for row in table.splitlines()[2:]:
        _, names, datatype, *_ = row.split("|")
        for name in names.split(","):
            told[name.strip(" `")] = datatype.split()[0]
    references = {IMAGE: "BYTES", DIGEST: "BYTES", WEIGHT: "FP32"}
    settings = {setting.name: setting.datatype for setting in (*SETTINGS.values(), IDEMPOTENCY_KEY)}
    assert told == settings | references


async def test_live_and_ready_follow_the_servers_life():
    async with run_server(Script(loads=False), kserve=KserveOptions(enabled=True), wait=False) as serving:
        assert (await stub(serving).ServerLive(oip.ServerLiveRequest())).live
        assert not (await stub(serving).ServerReady(oip.ServerReadyRequest())).ready
        for name in ("", "fake"):
            assert not (await stub(serving).ModelReady(oip.ModelReadyRequest(name=name))).ready
        refusal = await refused(stub(serving).ModelMetadata(oip.ModelMetadataRequest()))
        assert refusal.reason == "ENGINE_UNAVAILABLE"
    async with run_server(kserve=KserveOptions(enabled=True)) as serving:
        assert (await stub(serving).ServerReady(oip.ServerReadyRequest())).ready
        assert (await stub(serving).ModelReady(oip.ModelReadyRequest(name="fake"))).ready
        await serving.app.drain()
        # Probes are answered to the end; calls are refused.
        assert (await stub(serving).ServerLive(oip.ServerLiveRequest())).live
        assert not (await stub(serving).ServerReady(oip.ServerReadyRequest())).ready
        assert (await infer_refused(serving, asked())).reason == "DRAINING"


async def test_an_inference_counts_as_a_generation(serving):
    await stub(serving).ModelInfer(asked("seed"))
    await stub(serving).ServerLive(oip.ServerLiveRequest())
    (line,) = serving.lines("call")
    assert line["method"] == "/inference.GRPCInferenceService/ModelInfer"
    assert line["code"] == "OK"
    value = serving.app.metrics.registry.get_sample_value
    assert value("limner_request_seconds_count", {"outcome": "ok"}) == 1
    labels = {
        "grpc_type": "unary",
        "grpc_service": "inference.GRPCInferenceService",
        "grpc_method": "ModelInfer",
    }
    assert value("grpc_server_started_total", labels) == 1


async def test_health_and_reflection_know_the_service(serving):
    name = "inference.GRPCInferenceService"
    answer = await serving.health.Check(HealthCheckRequest(service=name))
    assert answer.status == HealthCheckResponse.SERVING
    method = serving.channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    call = method()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await call.read()
    assert name in {each.name for each in answer.list_services_response.service}
    call.cancel()


async def test_it_is_not_served_unless_it_is_asked_for():
    async with run_server() as serving:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(serving).ServerLive(oip.ServerLiveRequest())
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
