"""Several references, adapters and layers: what reaches the engine, what is told, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from limner.v1 import portrait_pb2
from limner.v1.model_service_pb2 import GetLimitsRequest, ListModelsRequest
from limner.v1.portrait_pb2 import PortraitSpec, Region, WeightedReference
from limner.v1.portrait_service_pb2 import GenerateRequest, GenerateResponse
from limner.v1.reference_service_pb2 import UploadReferenceRequest
from PIL import Image

from server.config.options import LimitOptions
from server.imaging.encode import read_parameters
from tests.server.answers import refused
from tests.server.fake_engine import Script, ready_message
from tests.server.imaging.pictures import file_of, scenery
from tests.server.running import Serving, run_server

FIRST, SECOND = file_of(scenery(), "PNG"), file_of(scenery(90, 64), "PNG")
SMALL = file_of(scenery(20, 20), "PNG")
DAMAGED = FIRST[: len(FIRST) // 2]
UNKNOWN = "0" * 64
MISS, HIT = portrait_pb2.CACHE_OUTCOME_MISS, portrait_pb2.CACHE_OUTCOME_HIT


def asked(*references: WeightedReference, **fields: Any) -> GenerateRequest:
    return GenerateRequest(portrait=PortraitSpec(prompt="a sailor", references=references, **fields))


async def generate(
    serving: Serving, references: Sequence[WeightedReference], **fields: Any
) -> GenerateResponse:
    answer: GenerateResponse = await serving.portraits.Generate(asked(*references, **fields))
    return answer


async def test_pictures_and_digests_are_blended_with_their_weights(serving: Serving) -> None:
    uploaded = await serving.references.UploadReference(UploadReferenceRequest(image=SECOND))
    references = [
        WeightedReference(image=FIRST, weight=0.7),
        WeightedReference(digest=uploaded.reference.digest),
        WeightedReference(image=SMALL, weight=0),
    ]
    answer = await generate(serving, references, ip_adapter_scale=0.5)
    (submit,), (tokens,) = serving.script.submitted, serving.script.tensors
    assert submit.reference_weights == (0.7, 1.0, 0.0)
    assert (submit.adapter, submit.reference_layers, submit.ip_adapter_scale) == ("base", "all", 0.5)
    assert tokens is not None
    assert tokens.shape == (3, 4, 8)
    assert len({float(each.mean()) for each in tokens}) == 3
    uses = answer.summary.references
    assert [use.cache_outcome for use in uses] == [MISS, HIT, MISS]
    assert [round(use.weight, 6) for use in uses] == [0.7, 1.0, 0.0]
    assert uses[1].digest == uploaded.reference.digest
    assert answer.summary.reference == uses[0]
    assert answer.summary.parameters.adapter == "base"
    assert answer.summary.parameters.reference_layers == portrait_pb2.REFERENCE_LAYERS_ALL
    warnings = {(warning.code, warning.field) for warning in answer.summary.warnings}
    assert (portrait_pb2.WARNING_CODE_REFERENCE_UNUSED, "portrait.references[2].weight") in warnings
    assert (portrait_pb2.WARNING_CODE_REFERENCE_SMALL, "portrait.references[2].image") in warnings
    embedded = read_parameters(answer.images[0].data)
    assert embedded is not None
    assert embedded.references == tuple(
        (use.digest, weight) for use, weight in zip(uses, (0.7, 1.0, 0.0), strict=True)
    )
    (line,) = [line for line in serving.lines("call") if "references" in line]
    assert (line["references"], line["cache"]) == (3, "miss+hit+miss")


async def test_the_same_picture_twice_is_encoded_once(serving: Serving) -> None:
    answer = await generate(serving, [WeightedReference(image=FIRST)] * 2)
    assert serving.script.encoded == 1
    assert len({use.digest for use in answer.summary.references}) == 1


async def test_one_of_several_is_the_single_reference(serving: Serving) -> None:
    single = PortraitSpec(prompt="a sailor", reference_image=FIRST)
    await serving.portraits.Generate(GenerateRequest(portrait=single))
    await generate(serving, [WeightedReference(image=FIRST)])
    plain = await serving.portraits.Generate(GenerateRequest(portrait=PortraitSpec(prompt="a sailor")))
    first, second, third = serving.script.tensors
    assert first is not None and second is not None and third is None
    np.testing.assert_array_equal(first, second)
    assert [submit.reference_weights for submit in serving.script.submitted] == [(1.0,), (1.0,), ()]
    assert plain.summary.parameters.adapter == ""
    assert plain.summary.parameters.reference_layers == portrait_pb2.REFERENCE_LAYERS_UNSPECIFIED
    assert not plain.summary.references


async def test_the_adapter_is_the_requests(serving: Serving) -> None:
    answer = await generate(serving, [WeightedReference(image=FIRST)], adapter="plus")
    (submit,), (tokens,) = serving.script.submitted, serving.script.tensors
    assert submit.adapter == answer.summary.parameters.adapter == "plus"
    assert tokens is not None and tokens.shape == (1, 16, 8)
    digest = answer.summary.reference.digest
    told = await refused(serving.portraits.Generate(asked(WeightedReference(digest=digest))))
    assert told.reason == "REFERENCE_NOT_FOUND"
    # An upload says which adapter it is for, and then the digest is known to that one.
    await serving.references.UploadReference(UploadReferenceRequest(image=SECOND, adapter="plus"))
    assert serving.script.encoded == 2
    again = await serving.references.UploadReference(UploadReferenceRequest(image=FIRST, adapter="plus"))
    assert again.cache_outcome == HIT


@pytest.mark.parametrize(
    ("layers", "name"), [("STYLE", "style"), ("LAYOUT", "layout"), ("STYLE_AND_LAYOUT", "style+layout")]
)
async def test_layers_reach_the_engine_and_are_told(serving: Serving, layers: str, name: str) -> None:
    number = portrait_pb2.ReferenceLayers.Value(f"REFERENCE_LAYERS_{layers}")
    answer = await generate(serving, [WeightedReference(image=FIRST)], reference_layers=number)
    assert serving.script.submitted[0].reference_layers == name
    assert answer.summary.parameters.reference_layers == number


async def test_regions_reach_the_engine_and_the_files_metadata(serving: Serving) -> None:
    left = Region(left=0, top=0, right=0.7, bottom=1)
    references = [WeightedReference(image=FIRST, region=left), WeightedReference(image=SECOND)]
    answer = await generate(serving, references)
    assert serving.script.submitted[0].reference_regions == ((0.0, 0.0, 0.7, 1.0), None)
    parameters = read_parameters(answer.images[0].data)
    assert parameters is not None
    assert parameters.regions == ((0.0, 0.0, 0.7, 1.0), None)
    assert "IP-Adapter regions: 0:0:0.7:1 everywhere" in parameters.infotext()
    await generate(serving, [WeightedReference(image=FIRST)])
    assert serving.script.submitted[1].reference_regions == ()


async def test_a_backend_without_regions_refuses_them() -> None:
    async with run_server(Script(ready=ready_message(reference_regions=False))) as serving:
        (model,) = (await serving.models.ListModels(ListModelsRequest())).models
        assert not model.reference_regions
        region = Region(right=0.5, bottom=1)
        told = await refused(generate(serving, [WeightedReference(image=FIRST, region=region)]))
        assert told.violations == {
            "portrait.references[0].region": "is set; the limit is none: the model takes no regions here"
        }
        assert not serving.script.submitted


async def test_models_and_limits_tell_what_can_be_asked(serving: Serving) -> None:
    (model,) = (await serving.models.ListModels(ListModelsRequest())).models
    assert list(model.adapters) == ["base", "plus"]
    assert list(model.reference_layers) == [1, 2, 3, 4]
    assert model.reference_regions
    limits = (await serving.models.GetLimits(GetLimitsRequest())).limits
    assert (limits.max_references, limits.max_reference_weight) == (4, 2.0)


BAD: dict[str, tuple[GenerateRequest, dict[str, str]]] = {
    "too many": (
        asked(*[WeightedReference(image=FIRST)] * 4),
        {"references": "has 4 references; the limit is 3"},
    ),
    "thousands": (
        asked(*[WeightedReference()] * 5000),
        {
            "references": "has 5000 references; the limit is 3",
            **{
                f"references[{i}]": "has neither image nor digest; the limit is one of the two"
                for i in range(3)
            },
        },
    ),
    "every field of each": (
        asked(
            WeightedReference(weight=-0.5),
            WeightedReference(image=b"", weight=1.6),
            WeightedReference(digest="abc", weight=float("nan")),
        ),
        {
            "references[0]": "has neither image nor digest; the limit is one of the two",
            "references[0].weight": "is -0.5; the limit is 0 to 1.5",
            "references[1].image": "is empty; the limit is 1 to 200000 bytes",
            "references[1].weight": "is 1.6; the limit is 0 to 1.5",
            "references[2].digest": "has 3 characters; the limit is a SHA-256 in 64 lower-case hex",
            "references[2].weight": "is nan, not a finite number; the limit is 0 to 1.5",
        },
    ),
    "no part of the picture": (
        asked(
            WeightedReference(image=FIRST, region=Region(left=0.5, right=0.25, bottom=0)),
            WeightedReference(image=FIRST, region=Region(left=-1, top=float("nan"), right=2, bottom=1)),
            WeightedReference(image=FIRST, region=Region(right=0.125, bottom=0.1)),
        ),
        {
            "references[0].region.right": "is 0.25; the limit is more than left (0.5), up to 1",
            "references[0].region.bottom": "is 0; the limit is more than top (0), up to 1",
            "references[1].region.left": "is -1.0; the limit is 0 to 1",
            "references[1].region.right": "is 2.0; the limit is 0 to 1",
            "references[1].region.top": "is nan, not a finite number; the limit is 0 to 1",
            "references[2].region.bottom": "is 0.1, 6.4 pixels from top; the limit is at least 8 pixels",
        },
    ),
    "together with a picture": (
        asked(WeightedReference(image=FIRST), reference_image=SECOND),
        {"references": "is set together with portrait.reference_image; the limit is one of the two"},
    ),
    "together with a digest": (
        asked(WeightedReference(image=FIRST), reference_digest=UNKNOWN),
        {"references": "is set together with portrait.reference_digest; the limit is one of the two"},
    ),
    "all three ways": (
        asked(WeightedReference(image=FIRST), reference_image=SECOND, reference_digest=UNKNOWN),
        {
            "reference_digest": "is set together with portrait.reference_image; the limit is one of them",
            "references": "is set together with portrait.reference_image; the limit is one of them",
        },
    ),
    "unknown adapter": (
        asked(WeightedReference(image=FIRST), adapter="faceid"),
        {"adapter": "names no adapter of this model; the limit is one of base, plus"},
    ),
    "layers without a meaning": (
        asked(WeightedReference(image=FIRST), reference_layers=9),  # type: ignore[arg-type]
        {
            "reference_layers": "is the number 9, which has no meaning here; "
            "the limit is one of ALL, STYLE, LAYOUT, STYLE_AND_LAYOUT"
        },
    ),
    "layers that the model does not know": (
        asked(WeightedReference(image=FIRST), reference_layers=portrait_pb2.REFERENCE_LAYERS_STYLE),
        {"reference_layers": "is STYLE, which is not known for this model; the limit is one of ALL"},
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_cannot_be_is_told_by_field(name: str) -> None:
    limits = LimitOptions(max_image_bytes=200_000, max_references=3, max_reference_weight=1.5)
    request, violations = BAD[name]
    async with run_server(Script(ready=ready_message(reference_layers=("all",))), limits=limits) as serving:
        told = await refused(serving.portraits.Generate(request))
        assert (told.code, told.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
        expected = {f"portrait.{field}": text for field, text in violations.items()}
        assert {
            field: text[: len(expected.get(field, ""))] for field, text in told.violations.items()
        } == expected
        assert (len(serving.script.submitted), serving.script.encoded) == (0, 0)


async def test_every_picture_that_is_none_is_told_at_once(serving: Serving) -> None:
    single = file_of(Image.new("RGB", (1, 1)), "PNG")
    told = await refused(
        serving.portraits.Generate(
            asked(
                WeightedReference(image=DAMAGED),
                WeightedReference(digest=UNKNOWN),
                WeightedReference(image=FIRST),
                WeightedReference(image=single),
            )
        )
    )
    assert (told.code, told.reason) == ("INVALID_ARGUMENT", "INVALID_IMAGE")
    assert list(told.violations) == ["portrait.references[0].image", "portrait.references[3].image"]
    assert "truncated or damaged" in told.violations["portrait.references[0].image"]
    assert not serving.script.submitted
    assert serving.app.admission.in_flight == 0


async def test_every_unknown_digest_is_told_at_once(serving: Serving) -> None:
    other = "1" * 64
    told = await refused(
        serving.portraits.Generate(
            asked(
                WeightedReference(digest=UNKNOWN),
                WeightedReference(image=FIRST),
                WeightedReference(digest=other),
            )
        )
    )
    assert (told.code, told.reason) == ("NOT_FOUND", "REFERENCE_NOT_FOUND")
    assert list(told.violations) == ["portrait.references[0].digest", "portrait.references[2].digest"]
    assert (told.metadata["digest"], told.metadata["digests"]) == (UNKNOWN, f"{UNKNOWN} {other}")


async def test_an_upload_for_an_unknown_adapter(serving: Serving) -> None:
    told = await refused(
        serving.references.UploadReference(UploadReferenceRequest(image=FIRST, adapter="nope"))
    )
    assert told.violations == {"adapter": "names no adapter of this model; the limit is one of base, plus"}
    assert serving.script.encoded == 0
