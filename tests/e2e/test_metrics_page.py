"""After real traffic the metrics page is valid, and every documented series is on it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from limner_client import AsyncClient, Client, InvalidRequest
from prometheus_client.parser import text_string_to_metric_families

from tools.local_server import LocalServer

TABLE = Path(__file__).parents[2] / "docs/metrics.md"


@pytest.fixture(scope="module")
def traffic(server: LocalServer, references: list[Path]) -> None:
    """A hit, a miss, images in every format, a refusal."""

    async def at_once() -> None:
        async with AsyncClient(server.target, tenant="metrics") as client:
            picture = references[1].read_bytes()
            formats = ("png", "jpeg", "webp", "png")
            await asyncio.gather(
                *[client.generate("a portrait", picture, steps=2, format=name) for name in formats]
            )

    asyncio.run(at_once())
    with Client(server.target, tenant="metrics") as client:
        client.generate("a portrait", references[1], steps=2)
        with pytest.raises(InvalidRequest):
            client.generate("a portrait", steps=100_000)


def documented() -> dict[str, str]:
    """Return the type of every series in docs/metrics.md."""
    rows = re.findall(r"^\| `([a-z_]+)` \| (counter|gauge|histogram) \|", TABLE.read_text(), re.MULTILINE)
    assert len(rows) > 40
    return dict(rows)


@pytest.mark.usefixtures("traffic")
def test_every_documented_series_has_samples(page: Callable[[], str]) -> None:
    on_page = {family.name: family for family in text_string_to_metric_families(page()) if family.samples}
    missing = [
        name
        for name, kind in documented().items()
        # Without a GPU, or a Redis, their series are absent by contract.
        if not name.startswith(("limner_gpu_", "limner_redis_"))
        and (name.removesuffix("_total") if kind == "counter" else name) not in on_page
    ]
    assert not missing
    undocumented = set(on_page) - {name.removesuffix("_total") for name in documented()}
    assert not undocumented


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("limner_request_seconds_count", {"outcome": "ok"}),
        ("limner_request_seconds_count", {"outcome": "invalid"}),
        ("limner_stage_seconds_count", {"stage": "decode_input"}),
        ("limner_stage_seconds_count", {"stage": "encode_reference"}),
        ("limner_stage_seconds_count", {"stage": "encode_prompt"}),
        ("limner_stage_seconds_count", {"stage": "denoise"}),
        ("limner_stage_seconds_count", {"stage": "decode_latents"}),
        ("limner_stage_seconds_count", {"stage": "encode_output"}),
        ("limner_rows_total", {"kind": "useful"}),
        ("limner_ticks_total", {}),
        ("limner_tick_seconds_count", {}),
        ("limner_queue_wait_seconds_count", {}),
        ("limner_batch_occupancy_ratio_count", {}),
        ("limner_reference_cache_hits_total", {}),
        ("limner_reference_cache_misses_total", {}),
        ("limner_reference_cache_bytes", {}),
        ("limner_reference_cache_entries", {}),
        ("limner_engine_busy_seconds_total", {}),
        ("limner_engine_ready", {}),
        ("limner_engine_process_resident_memory_bytes", {}),
        ("limner_engine_process_cpu_seconds_total", {}),
        ("limner_server_process_resident_memory_bytes", {}),
        ("limner_images_total", {"format": "png"}),
        ("limner_images_total", {"format": "jpeg"}),
        ("limner_images_total", {"format": "webp"}),
        ("limner_requests_rejected_total", {"reason": "invalid_field"}),
        ("limner_ready", {}),
        ("limner_build_info", {}),
        ("grpc_server_started_total", {"grpc_method": "Generate"}),
        ("grpc_server_handled_total", {"grpc_method": "Generate", "grpc_code": "InvalidArgument"}),
        ("grpc_server_handling_seconds_count", {"grpc_method": "Generate"}),
    ],
)
def test_traffic_shows_in(total: Callable[..., float], name: str, labels: dict[str, str]) -> None:
    assert total(name, **labels) > 0


@pytest.mark.usefixtures("traffic")
def test_promtool_finds_nothing_to_complain_about(page: Callable[[], str]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        if os.environ.get("CI") == "true":
            pytest.fail("promtool is not installed; python -m tools.install says why")
        pytest.skip("promtool is not installed; python -m tools.install says why")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=page(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
