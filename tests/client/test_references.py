"""Upload once, reuse by digest, upload again when the server forgot."""

import hashlib
import io
from pathlib import Path

import PIL.Image
import pytest
from limner_client import CacheOutcome, Client, ImageFormat, ReferenceNotFound, WeightedReference

from tests.client.fakes import PICTURE, FakeLimner

DIGEST = hashlib.sha256(PICTURE).hexdigest()


def methods(fake: FakeLimner) -> list[str]:
    return [name for name, _, _ in fake.calls]


def test_an_unknown_picture_is_uploaded_exactly_once(call, fake):
    portrait = call("generate", "a sailor", PICTURE)
    assert methods(fake) == ["Generate", "UploadReference", "Generate"]
    assert portrait.reference.digest == DIGEST
    assert (portrait.cache_outcome, portrait.upload_outcome) == (CacheOutcome.MISS, CacheOutcome.MISS)
    again = call("generate", "a baker", PICTURE)
    assert (again.cache_outcome, again.upload_outcome) == (CacheOutcome.HIT, None)
    assert methods(fake)[3:] == ["Generate"]
    assert not any(request.portrait.reference_image for request in fake.named("Generate"))


def test_an_evicted_reference_is_uploaded_again_from_memory(call, fake):
    reference = call("upload", PICTURE)
    assert (reference.digest, reference.cache_outcome) == (DIGEST, CacheOutcome.MISS)
    fake.known.clear()
    fake.calls.clear()
    call("generate", "a sailor", reference)
    assert methods(fake) == ["Generate", "UploadReference", "Generate"]


def test_a_digest_without_bytes_at_hand_is_an_error(call, fake):
    with pytest.raises(ReferenceNotFound) as caught:
        call("generate", "a sailor", DIGEST)
    assert caught.value.reason == "REFERENCE_NOT_FOUND"
    assert caught.value.metadata["digest"] == DIGEST
    assert methods(fake) == ["Generate"]


def test_where_uploads_go_to_another_replica_the_picture_travels_in_the_request(call, fake):
    fake.stores_uploads = False
    portrait = call("generate", "a sailor", PICTURE)
    assert methods(fake) == ["Generate", "UploadReference", "Generate", "Generate"]
    assert fake.named("Generate")[-1].portrait.reference_image == PICTURE
    assert portrait.reference.digest == DIGEST


def test_a_stream_uploads_too(call, fake):
    assert call("stream", "a sailor", PICTURE)[-1].portrait.upload_outcome is CacheOutcome.MISS
    assert methods(fake) == ["GenerateStream", "UploadReference", "GenerateStream"]


def test_paths_pillow_images_and_digests_name_a_reference(client: Client, fake: FakeLimner, tmp_path: Path):
    path = tmp_path / "ada.png"
    path.write_bytes(PICTURE)
    assert client.upload(path).digest == DIGEST
    assert client.generate("a sailor", DIGEST).cache_outcome is CacheOutcome.HIT
    drawn = client.upload(PIL.Image.new("RGB", (8, 8), "teal"))
    assert drawn.digest in fake.known
    assert PIL.Image.open(io.BytesIO(fake.named("UploadReference")[-1].image)).format == "PNG"
    assert client.generate("a sailor", str(path)).cache_outcome is CacheOutcome.HIT
    with pytest.raises(FileNotFoundError):
        client.generate("a sailor", "missing.png")
    with pytest.raises(TypeError):
        client.generate("a sailor", 7)  # type: ignore[arg-type]


def test_get_and_delete(call, fake):
    call("upload", PICTURE)
    found = call("get_reference", DIGEST)
    assert (found.format, found.width, found.create_time.year) == (ImageFormat.PNG, 128, 2026)
    call("delete_reference", found)
    with pytest.raises(ReferenceNotFound):
        call("delete_reference", DIGEST)
    with pytest.raises(ReferenceNotFound):  # this client forgot the bytes too
        call("generate", "a sailor", DIGEST)


def test_metadata_names_the_tenant_the_call_and_the_reference(call, fake):
    portrait = call("generate", "a sailor", PICTURE)
    sent = [metadata for _, _, metadata in fake.calls]
    assert {metadata["x-limner-reference"] for metadata in sent} == {DIGEST}
    assert {metadata["x-limner-tenant"] for metadata in sent} == {"acme"}
    assert {metadata["x-request-id"] for metadata in sent} == {portrait.request_id}
    call("generate", "a sailor")
    assert "x-limner-reference" not in fake.calls[-1][2]
    assert fake.calls[-1][2]["x-request-id"] != portrait.request_id


OTHER = PICTURE + b"2"
OTHER_DIGEST = hashlib.sha256(OTHER).hexdigest()


def test_several_references_are_uploaded_as_far_as_they_are_unknown(call, fake):
    call("upload", PICTURE)
    fake.calls.clear()
    blend = [PICTURE, WeightedReference(source=OTHER, weight=0.5)]
    portrait = call("generate", "a sailor", blend, adapter="plus", model="small")
    assert methods(fake) == ["Generate", "UploadReference", "Generate"]
    (upload,) = fake.named("UploadReference")
    assert (upload.image, upload.adapter, upload.model) == (OTHER, "plus", "small")
    spec = fake.named("Generate")[-1].portrait
    assert [reference.digest for reference in spec.references] == [DIGEST, OTHER_DIGEST]
    assert [reference.HasField("weight") for reference in spec.references] == [False, True]
    assert portrait.reference == portrait.references[0]
    assert portrait.references[1].weight == 0.5
    assert portrait.cache_outcome is CacheOutcome.MISS
    assert {metadata["x-limner-reference"] for _, _, metadata in fake.calls} == {DIGEST}


def test_an_upload_names_adapter_and_model(call, fake):
    call("upload", PICTURE, adapter="plus", model="small")
    call("upload", PICTURE)
    named = [(upload.adapter, upload.model) for upload in fake.named("UploadReference")]
    assert named == [("plus", "small"), ("", "")]


def test_all_that_a_server_lacks_is_uploaded_before_the_second_try(call, fake):
    call("generate", "a sailor", (PICTURE, OTHER, PICTURE))
    assert methods(fake) == ["Generate", "UploadReference", "UploadReference", "Generate"]


def test_of_several_those_travel_in_the_request_whose_upload_went_elsewhere(call, fake):
    fake.known.add(DIGEST)
    fake.stores_uploads = False
    call("generate", "a sailor", [DIGEST, OTHER])
    assert methods(fake) == ["Generate", "UploadReference", "Generate", "Generate"]
    first, second = fake.named("Generate")[-1].portrait.references
    assert (first.digest, second.image) == (DIGEST, OTHER)


def test_one_digest_without_bytes_fails_the_blend_and_uploads_nothing(call, fake):
    with pytest.raises(ReferenceNotFound):
        call("generate", "a sailor", [PICTURE, OTHER_DIGEST])
    assert methods(fake) == ["Generate"]


def test_one_reference_alone_is_sent_as_older_servers_know_it(call, fake):
    for reference in (PICTURE, [PICTURE]):
        call("generate", "a sailor", reference)
        spec = fake.named("Generate")[-1].portrait
        assert (spec.reference_digest, len(spec.references)) == (DIGEST, 0)
    call("generate", "a sailor", WeightedReference(source=PICTURE, weight=0.25))
    spec = fake.named("Generate")[-1].portrait
    assert (spec.reference_digest, spec.references[0].weight) == ("", 0.25)
    assert call("generate", "a sailor", []).references == ()
