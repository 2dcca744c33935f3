"""Every input of 'Bad input' against a running server: what the caller is told, and that it cost the engine nothing."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from math import inf, nan
from typing import Any

import pytest
from limner.v1.portrait_pb2 import PortraitSpec
from limner.v1.portrait_service_pb2 import GenerateRequest, GenerateStreamRequest
from limner.v1.reference_service_pb2 import (
    DeleteReferenceRequest,
    GetReferenceRequest,
    UploadReferenceRequest,
)
from PIL import ExifTags, Image

from server.config.options import LimitOptions
from tests.server.answers import Refusal, drained, refused
from tests.server.imaging.pictures import animation, bomb, file_of, scenery
from tests.server.running import Serving, run_server

LIMITS = LimitOptions(
    max_image_bytes=200_000,
    max_image_pixels=1_000_000,
    max_prompt_characters=100,
    max_steps=40,
    max_images=4,
    max_guidance_scale=20.0,
    max_ip_adapter_scale=1.2,
)
PNG = file_of(scenery(), "PNG")
UNKNOWN_DIGEST = "0" * 64


@pytest.fixture
async def strict() -> AsyncIterator[Serving]:
    async with run_server(limits=LIMITS) as running:
        yield running


@dataclass(frozen=True)
class Bad:
    """Fields of a portrait, and what must be said of them: field path, words of the problem, words of the limit."""

    fields: dict[str, Any]
    field: str
    problem: str
    limit: str
    code: str = "INVALID_ARGUMENT"
    reason: str = "INVALID_FIELD"
    others: dict[str, Any] = field(default_factory=dict)


BAD = {
    "prompt empty": Bad({"prompt": ""}, "prompt", "is empty", "1 to 100 characters"),
    "prompt blank": Bad({"prompt": "  "}, "prompt", "is blank", "1 to 100 characters"),
    "prompt too long": Bad({"prompt": "é" * 101}, "prompt", "has 101 characters", "100"),
    "prompt with a control character": Bad(
        {"prompt": "a\x07b"}, "prompt", "control character U+0007 at position 1", "none"
    ),
    "prompt with a line break": Bad({"prompt": "a\nb"}, "prompt", "control character U+000A", "none"),
    "negative prompt too long": Bad(
        {"negative_prompt": "x" * 101}, "negative_prompt", "has 101 characters", "100"
    ),
    "negative prompt with a control character": Bad(
        {"negative_prompt": "\x00"}, "negative_prompt", "control character U+0000", "none"
    ),
    "no steps": Bad({"steps": 0}, "steps", "is 0", "1 to 40"),
    "negative steps": Bad({"steps": -1}, "steps", "is -1", "1 to 40"),
    "too many steps": Bad({"steps": 41}, "steps", "is 41", "1 to 40"),
    "guidance negative": Bad({"guidance_scale": -0.5}, "guidance_scale", "is -0.5", "0 to 20"),
    "guidance too high": Bad({"guidance_scale": 20.5}, "guidance_scale", "is 20.5", "0 to 20"),
    "guidance NaN": Bad({"guidance_scale": nan}, "guidance_scale", "is nan, not a finite", "0 to 20"),
    "guidance infinite": Bad({"guidance_scale": inf}, "guidance_scale", "is inf, not a finite", "0 to 20"),
    "rescale out of range": Bad({"guidance_rescale": 1.5}, "guidance_rescale", "is 1.5", "0 to 1"),
    "guidance starts late": Bad({"guidance_start": 1.5}, "guidance_start", "is 1.5", "0 to 1"),
    "guidance ends NaN": Bad({"guidance_end": nan}, "guidance_end", "is nan", "0 to 1"),
    "guidance ends before it starts": Bad(
        {"guidance_start": 0.5, "guidance_end": 0.25}, "guidance_end", "is 0.25", "guidance_start (0.5) to 1"
    ),
    "rescale NaN": Bad({"guidance_rescale": nan}, "guidance_rescale", "is nan", "0 to 1"),
    "scale negative": Bad({"ip_adapter_scale": -0.1}, "ip_adapter_scale", "is -0.1", "0 to 1.2"),
    "scale too high": Bad({"ip_adapter_scale": 1.3}, "ip_adapter_scale", "is 1.3", "0 to 1.2"),
    "scale infinite": Bad(
        {"ip_adapter_scale": -inf}, "ip_adapter_scale", "is -inf, not a finite", "0 to 1.2"
    ),
    "width no multiple": Bad(
        {"width": 72}, "width", "is 72, not a multiple of 16", "multiple of 16 from 32 to 128"
    ),
    "height too large": Bad({"height": 144}, "height", "is 144", "multiple of 16 from 32 to 128"),
    "height negative": Bad({"height": -64}, "height", "is -64", "multiple of 16 from 32 to 128"),
    "too many images": Bad({"image_count": 5}, "image_count", "is 5", "0 to 4 images"),
    "negative count": Bad({"image_count": -1}, "image_count", "is -1", "0 to 4 images"),
    "negative seed": Bad({"seed": -1}, "seed", "is -1", "0 to 2^63 - 1"),
    "unknown sampler": Bad({"sampler": 99}, "sampler", "is the number 99", "DPMPP_2M_KARRAS"),
    "unknown format": Bad({"format": 7}, "format", "is the number 7", "PNG, JPEG, WEBP"),
    "unknown priority": Bad({"priority": -3}, "priority", "is the number -3", "INTERACTIVE, BATCH"),
    "quality out of range": Bad({"quality": 101}, "quality", "is 101", "0 to 100"),
    "digest too short": Bad(
        {"reference_digest": "abc"}, "reference_digest", "has 3 characters", "64 lower-case"
    ),
    "digest upper case": Bad(
        {"reference_digest": "A" * 64}, "reference_digest", "other than", "64 lower-case"
    ),
    "bytes and digest": Bad(
        {"reference_image": PNG, "reference_digest": UNKNOWN_DIGEST},
        "reference_digest",
        "set together with portrait.reference_image",
        "one of the two",
    ),
    "digest unknown": Bad(
        {"reference_digest": UNKNOWN_DIGEST},
        "reference_digest",
        "is not known here",
        "upload the reference again",
        code="NOT_FOUND",
        reason="REFERENCE_NOT_FOUND",
    ),
    "model unknown": Bad(
        {"model": "sdxl"},
        "model",
        "names no model",
        "one of fake",
        code="NOT_FOUND",
        reason="MODEL_NOT_FOUND",
    ),
    "preview interval negative": Bad(
        {}, "preview_interval", "is -1", "0 to 1000", others={"preview_interval": -1}
    ),
    "preview interval too large": Bad(
        {}, "preview_interval", "is 1001", "0 to 1000", others={"preview_interval": 1001}
    ),
    "key too long": Bad(
        {},
        "idempotency_key",
        "has 129 characters",
        "128 printable ASCII",
        others={"idempotency_key": "k" * 129},
    ),
    "key not ASCII": Bad(
        {}, "idempotency_key", "not printable ASCII", "128 printable ASCII", others={"idempotency_key": "clé"}
    ),
}

BAD_IMAGES = {
    "not an image": (b"GIF89a, or so it says", "is not an image", "a JPEG, PNG or WebP picture"),
    "another format": (file_of(scenery(), "GIF"), "is not an image", "a JPEG, PNG or WebP picture"),
    "truncated": (PNG[: len(PNG) // 2], "is truncated or damaged", "a complete picture"),
    "bomb": (bomb(20_000, 20_000), "pixels", "pixels"),
    "animated WebP": (animation("WEBP"), "is animated", "a still picture"),
    "animated PNG": (animation("PNG"), "is animated", "a still picture"),
    "1x1": (file_of(Image.new("RGB", (1, 1)), "PNG"), "has 1 x 1 pixels", "at least 16 on each side"),
    "huge": (
        file_of(Image.new("RGB", (1200, 900)), "PNG"),
        "has 1200 x 900 pixels",
        "at most 1000000 pixels",
    ),
}


def cost(serving: Serving) -> tuple[int, int, int]:
    return len(serving.script.submitted), serving.script.ticks, serving.script.encoded


def check(refusal: Refusal, bad: Bad, path: str) -> None:
    assert (refusal.code, refusal.reason) == (bad.code, bad.reason), refusal
    assert refusal.domain == "limner.v1"
    assert list(refusal.violations) == [path]
    assert bad.problem in refusal.violations[path]
    assert bad.limit in refusal.violations[path]
    assert refusal.metadata["field"] == path


@pytest.mark.parametrize("name", BAD)
async def test_bad_portraits(strict: Serving, name: str) -> None:
    bad = BAD[name]
    path = bad.field if bad.field in bad.others else f"portrait.{bad.field}"
    spec = PortraitSpec(**({"prompt": "a sailor"} | bad.fields))
    check(
        await refused(
            drained(strict.portraits.GenerateStream(GenerateStreamRequest(portrait=spec, **bad.others)))
        ),
        bad,
        path,
    )
    if "preview_interval" not in bad.others:
        check(
            await refused(strict.portraits.Generate(GenerateRequest(portrait=spec, **bad.others))), bad, path
        )
    assert cost(strict) == (0, 0, 0)
    assert strict.app.admission.in_flight == 0


@pytest.mark.parametrize("name", BAD_IMAGES)
async def test_bad_images(strict: Serving, name: str) -> None:
    data, problem, limit = BAD_IMAGES[name]
    spec = PortraitSpec(prompt="a sailor", reference_image=data)
    for path, call in (
        ("portrait.reference_image", strict.portraits.Generate(GenerateRequest(portrait=spec))),
        ("image", strict.references.UploadReference(UploadReferenceRequest(image=data))),
    ):
        bad = Bad({}, path, problem, limit, reason="INVALID_IMAGE")
        check(await refused(call), bad, path)
    assert cost(strict) == (0, 0, 0)
    assert strict.app.admission.in_flight == 0


async def test_too_many_bytes_and_none_at_all_are_seen_without_a_decoder(strict: Serving) -> None:
    spec = PortraitSpec(prompt="a sailor", reference_image=b"x" * 200_001)
    told = await refused(strict.portraits.Generate(GenerateRequest(portrait=spec)))
    assert told.violations == {"portrait.reference_image": "has 200001 bytes; the limit is 200000 bytes"}
    told = await refused(strict.references.UploadReference(UploadReferenceRequest()))
    assert told.violations == {"image": "is empty; the limit is 1 to 200000 bytes"}
    assert cost(strict) == (0, 0, 0)


async def test_a_reference_of_17_mib_is_refused_by_its_field(serving: Serving) -> None:
    data = bytes(17 << 20)
    limit = "has 17825792 bytes; the limit is 16777216 bytes"
    spec = PortraitSpec(prompt="a sailor", reference_image=data)
    told = await refused(serving.portraits.Generate(GenerateRequest(portrait=spec)))
    assert (told.reason, told.violations) == ("INVALID_FIELD", {"portrait.reference_image": limit})
    told = await refused(serving.references.UploadReference(UploadReferenceRequest(image=data)))
    assert (told.reason, told.violations) == ("INVALID_FIELD", {"image": limit})


async def test_a_prompt_that_is_too_long_is_not_read(
    strict: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def category(character: str) -> str:
        read.append(character)
        return "Ll"

    monkeypatch.setattr("server.api.checks.unicodedata.category", category)
    spec = PortraitSpec(prompt="x" * 10_000_000 + "\x07", negative_prompt="hat")
    told = await refused(strict.portraits.Generate(GenerateRequest(portrait=spec)))
    assert told.violations == {"portrait.prompt": "has 10000001 characters; the limit is 100"}
    assert read == ["h", "a", "t"]


ROTATED = Image.Exif()
ROTATED[ExifTags.Base.Orientation] = 6


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (file_of(scenery().convert("CMYK"), "JPEG"), (96, 64)),
        (file_of(Image.new("I;16", (50, 40), 30_000), "PNG"), (50, 40)),
        (file_of(scenery(), "JPEG", exif=ROTATED), (64, 96)),
        (file_of(scenery().convert("P"), "PNG"), (96, 64)),
        (file_of(scenery().convert("RGBA"), "WEBP"), (96, 64)),
    ],
    ids=["CMYK", "16-bit", "EXIF-rotated", "palette", "alpha"],
)
async def test_unusual_pictures_are_taken(strict: Serving, data: bytes, size: tuple[int, int]) -> None:
    answer = await strict.references.UploadReference(UploadReferenceRequest(image=data))
    assert (answer.reference.width, answer.reference.height) == size
    assert strict.script.encoded == 1


def wire(number: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


@pytest.mark.parametrize(
    ("method", "message", "path", "problem"),
    [
        (
            "PortraitService/Generate",
            wire(1, wire(1, b"caf\xe9")),
            "portrait.prompt",
            "is not UTF-8: byte 0xe9 at offset 3",
        ),
        (
            "PortraitService/GenerateStream",
            wire(1, wire(2, b"\xff")),
            "portrait.negative_prompt",
            "is not UTF-8",
        ),
        ("PortraitService/Generate", wire(1, b"") + wire(2, b"\xc3("), "idempotency_key", "is not UTF-8"),
        ("ReferenceService/GetReference", wire(1, b"\x80"), "digest", "is not UTF-8"),
        ("PortraitService/Generate", b"\x0a\x7f", "request", "cannot be parsed"),
        ("PortraitService/Generate", b"no message at all", "request", "cannot be parsed"),
    ],
)
async def test_what_cannot_be_parsed(
    strict: Serving, method: str, message: bytes, path: str, problem: str
) -> None:
    full = f"/limner.v1.{method}"
    if method.endswith("Stream"):
        refusal = await refused(drained(strict.channel.unary_stream(full)(message)))
    else:
        refusal = await refused(strict.channel.unary_unary(full)(message))
    check(refusal, Bad({}, path, problem, "the limit is"), path)
    assert cost(strict) == (0, 0, 0)


async def test_no_portrait_at_all(strict: Serving) -> None:
    told = await refused(strict.portraits.Generate(GenerateRequest()))
    assert told.violations == {"portrait": "is missing; the limit is exactly one"}


async def test_a_seed_beyond_63_bits_wraps_on_the_wire_and_is_told_as_what_arrived(strict: Serving) -> None:
    spec = PortraitSpec(prompt="x", seed=struct.unpack("<q", struct.pack("<Q", 2**63))[0])
    told = await refused(strict.portraits.Generate(GenerateRequest(portrait=spec)))
    assert told.violations["portrait.seed"].startswith("is -9223372036854775808; the limit is 0 to 2^63 - 1")


async def test_every_violation_is_told_at_once(strict: Serving) -> None:
    spec = PortraitSpec(
        prompt="", steps=0, guidance_scale=nan, width=7, seed=-1, sampler=77, reference_digest="x"
    )  # type: ignore[arg-type]
    told = await refused(strict.portraits.Generate(GenerateRequest(portrait=spec, idempotency_key="\x01")))
    assert set(told.violations) == {"idempotency_key"} | {
        f"portrait.{name}"
        for name in ("prompt", "steps", "guidance_scale", "width", "seed", "sampler", "reference_digest")
    }
    assert told.text.endswith("and 5 more")


async def test_neither_bytes_nor_digest_is_a_plain_text_to_image_request(strict: Serving) -> None:
    answer = await strict.portraits.Generate(GenerateRequest(portrait=PortraitSpec(prompt="a sailor")))
    assert answer.summary.parameters.ip_adapter_scale == 0
    assert answer.summary.reference.digest == ""
    assert strict.script.submitted[0].ip_adapter_scale == 0


async def test_a_scale_at_the_limit_is_not_beyond_it_in_single_precision(strict: Serving) -> None:
    spec = PortraitSpec(prompt="a sailor", ip_adapter_scale=1.2, guidance_scale=0.7, reference_image=PNG)
    await strict.portraits.Generate(GenerateRequest(portrait=spec))
    assert strict.script.submitted[0].ip_adapter_scale == 1.2
    assert strict.script.submitted[0].guidance_scale == 0.7


@pytest.mark.parametrize(
    ("digest", "problem"), [("xyz", "has 3 characters"), ("G" * 64, "other than 0-9 and a-f")]
)
async def test_malformed_digests_of_the_reference_service(strict: Serving, digest: str, problem: str) -> None:
    for call in (
        strict.references.GetReference(GetReferenceRequest(digest=digest)),
        strict.references.DeleteReference(DeleteReferenceRequest(digest=digest)),
    ):
        check(await refused(call), Bad({}, "digest", problem, "64 lower-case"), "digest")


async def test_unknown_digests_of_the_reference_service(strict: Serving) -> None:
    for call in (
        strict.references.GetReference(GetReferenceRequest(digest=UNKNOWN_DIGEST)),
        strict.references.DeleteReference(DeleteReferenceRequest(digest=UNKNOWN_DIGEST)),
    ):
        told = await refused(call)
        assert (told.code, told.reason) == ("NOT_FOUND", "REFERENCE_NOT_FOUND")
        assert told.metadata["digest"] == UNKNOWN_DIGEST


@pytest.mark.parametrize("tenant", ["", "-x", "a b", "x" * 65])
async def test_a_tenant_that_is_none(strict: Serving, tenant: str) -> None:
    key = "x-limner-tenant"
    call = strict.portraits.Generate(
        GenerateRequest(portrait=PortraitSpec(prompt="a sailor")), metadata=((key, tenant),)
    )
    told = await refused(call)
    assert (told.code, told.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert list(told.violations) == [f"metadata.{key}"]
    assert cost(strict) == (0, 0, 0)


async def test_a_cut_prompt_is_made_and_told(strict: Serving) -> None:
    strict.script.prompt_dropped = "and a parrot"
    answer = await strict.portraits.Generate(
        GenerateRequest(portrait=PortraitSpec(prompt="A sailor, and  a Parrot"))
    )
    (warning,) = answer.summary.warnings
    assert warning.field == "portrait.prompt"
    assert "and a parrot" in warning.message
    assert answer.summary.parameters.prompt == "A sailor,"
