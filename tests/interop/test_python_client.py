"""The project's own client and command against the same running server."""

import asyncio
import json
from pathlib import Path

import pytest
from limner_client import AsyncClient, CacheOutcome, Client, Completed, InvalidRequest, ReferenceNotFound
from limner_client.cli import main

from tests.interop.conftest import REFERENCE

PROMPT = "portrait at the sea, laughing, evening light"


def test_generate_uploads_once_and_then_hits(target):
    with Client(target, tenant="interop-once") as client:
        first = client.generate(PROMPT, REFERENCE, steps=4, seed=3)
        second = client.generate(PROMPT, REFERENCE, steps=4, seed=3)
        assert first.upload_outcome
        assert (second.cache_outcome, second.upload_outcome) == (CacheOutcome.HIT, None)
        assert first.image.data[:8] == b"\x89PNG\r\n\x1a\n"
        assert first.image.to_pil().size == (first.image.width, first.image.height)
        assert second.image.to_pil().tobytes() == first.image.to_pil().tobytes()
        assert first.reference
        client.delete_reference(first.reference.digest)
        with pytest.raises(ReferenceNotFound):
            client.get_reference(first.reference.digest)
        client.generate(PROMPT, REFERENCE, steps=4)  # is uploaded again


def test_stream_and_errors(target):
    with Client(target) as client:
        events = list(client.stream(PROMPT, REFERENCE, steps=4, image_count=2, preview_interval=2))
        assert isinstance(events[-1], Completed)
        assert len(events[-1].portrait.images) == 2
        with pytest.raises(InvalidRequest) as caught:
            client.generate("", steps=10_000)
        fields = {violation.field for violation in caught.value.violations}
        assert fields == {"portrait.prompt", "portrait.steps"}
        assert caught.value.request_id
        assert client.health().ready
        assert client.limits().max_images >= 1


async def test_async_calls_share_a_batch(target):
    async with AsyncClient(target) as client:
        portraits = await asyncio.gather(
            *(client.generate(PROMPT, REFERENCE, steps=6, seed=seed) for seed in range(4))
        )
    assert [portrait.seed for portrait in portraits] == [0, 1, 2, 3]
    assert max(portrait.timings.mean_batch_rows for portrait in portraits) > 2


def test_the_command(target, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--server", target, "--json"]
    assert main(["generate", PROMPT, "-r", str(REFERENCE), "-o", "out.jpg", "--steps", "4", *arguments]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["images"][0]["path"] == "out.jpg"
    assert Path("out.jpg").read_bytes()[:3] == b"\xff\xd8\xff"
    assert main(["info", *arguments]) == 0
    assert main(["health", *arguments]) == 0
