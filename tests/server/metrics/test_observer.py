"""What the server says becomes the right series."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from server.imaging.formats import PictureFormat
from server.metrics.labels import Phase, RejectReason, RequestOutcome, RpcType, Stage
from server.metrics.observer import ServerMetrics
from server.references.cache import ReferenceCache
from server.references.record import CacheOutcome
from tests.server.metrics.messages import finished, ready, tick
from tests.server.references.fakes import entry, key

GENERATE = "/limner.v1.PortraitService/Generate"


class Watched:
    """Metrics with a clock by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.metrics = ServerMetrics(version="0.1.0", clock=lambda: self.now)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_a_request_is_timed_and_counted_in_and_out(watched: Watched) -> None:
    with watched.metrics.request():
        assert watched.value("limner_requests_in_flight") == 1
        watched.now += 2.5
    assert watched.value("limner_requests_in_flight") == 0
    assert watched.value("limner_request_seconds_sum", outcome="ok") == 2.5


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (asyncio.CancelledError, "cancelled"),
        (GeneratorExit, "cancelled"),
        (ValueError, "failed"),
        (None, "ok"),
    ],
)
def test_the_exception_tells_the_outcome(
    watched: Watched, error: type[BaseException] | None, outcome: str
) -> None:
    with contextlib.nullcontext() if error is None else pytest.raises(error), watched.metrics.request():
        if error is not None:
            raise error
    assert watched.value("limner_request_seconds_count", outcome=outcome) == 1


def test_an_outcome_that_is_set_wins(watched: Watched) -> None:
    with pytest.raises(ValueError), watched.metrics.request() as request:  # noqa: PT011, PT012
        request.outcome = RequestOutcome.DEADLINE
        raise ValueError
    assert watched.value("limner_request_seconds_count", outcome="deadline") == 1


def test_labels_are_bounded(watched: Watched) -> None:
    watched.metrics.rejected("overloaded")
    watched.metrics.rejected(RejectReason.DRAINING)
    watched.metrics.rejected("a stranger's text")
    watched.metrics.cancelled("denoising")
    watched.metrics.cancelled("")
    assert watched.value("limner_requests_rejected_total", reason="overloaded") == 1
    assert watched.value("limner_requests_rejected_total", reason="draining") == 1
    assert watched.value("limner_requests_rejected_total", reason="other") == 1
    assert watched.value("limner_requests_cancelled_total", phase="denoising") == 1
    assert watched.value("limner_requests_cancelled_total", phase="other") == 1


def test_stages(watched: Watched) -> None:
    with watched.metrics.stage(Stage.ENCODE_OUTPUT):
        watched.now += 0.25
    with pytest.raises(ZeroDivisionError), watched.metrics.stage(Stage.ENCODE_OUTPUT):
        raise ZeroDivisionError
    watched.metrics.stage_seconds("decode_input", 0.5)
    watched.metrics.job_finished(finished())
    assert watched.value("limner_stage_seconds_count", stage="encode_output") == 1
    assert watched.value("limner_stage_seconds_sum", stage="encode_output") == 0.25
    assert watched.value("limner_stage_seconds_sum", stage="decode_input") == 0.5
    assert watched.value("limner_stage_seconds_sum", stage="denoise") == 2.0
    assert watched.value("limner_stage_seconds_sum", stage="decode_latents") == 0.1
    assert watched.value("limner_stage_seconds_sum", stage="encode_prompt") == 0.01
    with pytest.raises(ValueError, match="no such"):
        watched.metrics.stage_seconds("no such", 1)


def test_the_cache_is_read_at_each_scrape(watched: Watched) -> None:
    cache = ReferenceCache(capacity_bytes=20_000, on_evict=watched.metrics.cache_evicted)
    watched.metrics.watch_cache(cache)
    assert watched.value("limner_reference_cache_entries") == 0
    cache.put(key("a"), entry())
    cache.put(key("b"), entry())
    assert watched.value("limner_reference_cache_evictions_total") == 1
    assert watched.value("limner_reference_cache_entries") == 1
    assert watched.value("limner_reference_cache_bytes") == cache.bytes > 0
    for outcome in (CacheOutcome.HIT, CacheOutcome.HIT, CacheOutcome.MISS, CacheOutcome.COALESCED):
        watched.metrics.cache(outcome)
    assert watched.value("limner_reference_cache_hits_total") == 2
    assert watched.value("limner_reference_cache_misses_total") == 1
    assert watched.value("limner_reference_cache_coalesced_total") == 1


def test_ticks(watched: Watched) -> None:
    watched.metrics.engine_ready(ready())
    watched.metrics.tick(tick(bucket=4, useful=3))
    watched.metrics.tick(tick(bucket=4, useful=4))
    watched.metrics.tick(tick(bucket=0, useful=0))
    assert watched.value("limner_ticks_total", engine="0", bucket="4") == 2
    assert watched.value("limner_ticks_total", engine="0", bucket="1") == 0
    assert watched.value("limner_ticks_total", engine="0", bucket="0") is None
    assert watched.value("limner_tick_seconds_sum", engine="0", bucket="4") == pytest.approx(0.1)
    assert watched.value("limner_rows_total", engine="0", kind="useful") == 7
    assert watched.value("limner_rows_total", engine="0", kind="padded") == 1
    assert watched.value("limner_batch_occupancy_ratio_bucket", engine="0", le="0.999") == 1
    assert watched.value("limner_batch_occupancy_ratio_count", engine="0") == 2
    assert watched.value("limner_queue_depth", engine="0") == 5
    assert watched.value("limner_images_running", engine="0") == 2
    assert watched.value("limner_queue_oldest_age_seconds", engine="0") == 0.7
    assert watched.value("limner_engine_process_resident_memory_bytes", engine="0") == 10**9


def test_totals_survive_the_engine_and_its_gauges_do_not(watched: Watched) -> None:
    watched.metrics.engine_ready(ready())
    watched.metrics.tick(tick(busy=10, cpu=20, encoded=3))
    watched.metrics.tick(tick(busy=11, cpu=22, encoded=3))
    assert watched.value("limner_engine_ready", engine="0") == 1
    watched.metrics.engine_lost()
    labels = {"engine": "0", "model": "limner-portraits", "family": "sd1", "weights_hash": "0123"}
    labels |= {"backend": "torch", "device": "cpu"}
    assert watched.value("limner_model_info", **labels) is None
    assert watched.value("limner_engine_ready", engine="0") == 0
    assert watched.value("limner_queue_depth", engine="0") == 0
    watched.metrics.engine_restarted()
    watched.metrics.engine_ready(ready())
    watched.metrics.jobs_replayed(4)
    watched.metrics.job_poisoned()
    # The new process has already worked longer than the old one had.
    watched.metrics.tick(tick(busy=15, cpu=30, encoded=5))
    assert watched.value("limner_engine_busy_seconds_total", engine="0") == 26
    assert watched.value("limner_engine_process_cpu_seconds_total", engine="0") == 52
    assert watched.value("limner_image_encodes_total", engine="0") == 8
    assert watched.value("limner_engine_restarts_total", engine="0") == 1
    assert watched.value("limner_jobs_replayed_total", engine="0") == 4
    assert watched.value("limner_jobs_poisoned_total") == 1
    assert watched.value("limner_model_info", **labels) == 1


def test_engines_are_apart(watched: Watched) -> None:
    watched.metrics.tick(tick(busy=1), engine="0")
    watched.metrics.tick(tick(busy=5), engine="1")
    assert watched.value("limner_engine_busy_seconds_total", engine="0") == 1
    assert watched.value("limner_engine_busy_seconds_total", engine="1") == 5


def test_rpcs(watched: Watched) -> None:
    watched.metrics.declare_rpcs({GENERATE: RpcType.UNARY})
    labels = {"grpc_type": "unary", "grpc_service": "limner.v1.PortraitService", "grpc_method": "Generate"}
    assert watched.value("grpc_server_started_total", **labels) == 0
    watched.metrics.rpc_started(GENERATE)
    watched.metrics.rpc_handled(GENERATE, "RESOURCE_EXHAUSTED", 0.5)
    watched.metrics.rpc_handled(GENERATE, "CANCELLED", 0.5)
    watched.metrics.rpc_handled(GENERATE, "OK", 0.5)
    assert watched.value("grpc_server_started_total", **labels) == 1
    assert watched.value("grpc_server_handling_seconds_sum", **labels) == 1.5
    for code in ("ResourceExhausted", "Canceled", "OK"):
        assert watched.value("grpc_server_handled_total", **labels, grpc_code=code) == 1


def test_a_strangers_method_is_no_label(watched: Watched) -> None:
    watched.metrics.rpc_started("/evil.Service/" + "x" * 1000)
    watched.metrics.rpc_handled("/evil.Service/y", "UNIMPLEMENTED", 0.1)
    unknown = {"grpc_type": "unary", "grpc_service": "unknown", "grpc_method": "unknown"}
    assert watched.value("grpc_server_started_total", **unknown) == 1


def test_series_of_bounded_labels_begin_at_zero(watched: Watched) -> None:
    for outcome in RequestOutcome:
        assert watched.value("limner_request_seconds_count", outcome=outcome.value) == 0
    for phase in Phase:
        assert watched.value("limner_requests_cancelled_total", phase=phase.value) == 0
    assert watched.value("limner_engine_ready", engine="0") == 0
    assert watched.value("limner_ready") == 0
    watched.metrics.ready(True)
    assert watched.value("limner_ready") == 1
    watched.metrics.image_made(PictureFormat.WEBP)
    assert watched.value("limner_images_total", format="webp") == 1
