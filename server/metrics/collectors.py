"""Every metric of the server, declared here and nowhere else; ``docs/metrics.md`` documents each, and a test
compares.

The GPUs' (:mod:`server.metrics.gpu`) are read from NVML at each scrape and declared there.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

_REQUEST_SECONDS = (0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 12, 20, 30, 60, 120, 300)
_WAIT_SECONDS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120)
_STAGE_SECONDS = (0.0005, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TICK_SECONDS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5)
_RPC_SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120)
_REDIS_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.1, 0.5)
_OCCUPANCY = (0.25, 0.5, 0.625, 0.75, 0.875, 0.999, 1)


class Collectors:
    """The collectors, all on one registry. ``server.metrics.observer`` alone changes them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(name, what, labels, registry=registry)

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(name, what, labels, registry=registry)

        def histogram(name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, what, labels, buckets=buckets, registry=registry)

        # Requests.
        self.request_seconds = histogram(
            "limner_request_seconds", "Latency of a generation, by outcome.", _REQUEST_SECONDS, "outcome"
        )
        self.requests_in_flight = gauge(
            "limner_requests_in_flight", "Generation calls that have begun and have not ended."
        )
        self.rejected = counter("limner_requests_rejected_total", "Requests that were refused.", "reason")
        self.cancelled = counter(
            "limner_requests_cancelled_total",
            "Requests that their caller cancelled before their deadline.",
            "phase",
        )
        self.images = counter("limner_images_total", "Images that were encoded for a caller.", "format")
        self.stage_seconds = histogram(
            "limner_stage_seconds", "Time of a request's stage.", _STAGE_SECONDS, "stage"
        )
        self.imaging_wait = histogram(
            "limner_imaging_wait_seconds",
            "Wait of a picture for a thread of the imaging pool.",
            _WAIT_SECONDS,
        )

        # The queue, in the engine.
        self.queue_depth = gauge("limner_queue_depth", "Images that wait for their first tick.", "engine")
        self.queue_oldest = gauge(
            "limner_queue_oldest_age_seconds",
            "Age of the image that has waited longest for its first tick.",
            "engine",
        )
        self.queue_wait = histogram(
            "limner_queue_wait_seconds", "Wait of a job for its first tick.", _WAIT_SECONDS
        )

        # Ticks.
        self.tick_seconds = histogram(
            "limner_tick_seconds", "Time of a tick (one UNet call).", _TICK_SECONDS, "engine", "bucket"
        )
        self.ticks = counter("limner_ticks_total", "Ticks.", "engine", "bucket")
        self.rows = counter(
            "limner_rows_total", "Rows that ticks computed: useful, or padding.", "engine", "kind"
        )
        self.occupancy = histogram(
            "limner_batch_occupancy_ratio", "Useful share of the rows of a tick.", _OCCUPANCY, "engine"
        )
        self.images_running = gauge(
            "limner_images_running",
            "Images that have started and have not ended, pre-empted ones included.",
            "engine",
        )

        # References.
        self.cache_hits = counter("limner_reference_cache_hits_total", "References that were in the cache.")
        self.cache_misses = counter(
            "limner_reference_cache_misses_total", "References that were encoded for a request."
        )
        self.cache_coalesced = counter(
            "limner_reference_cache_coalesced_total", "References that another request was encoding already."
        )
        self.cache_evictions = counter(
            "limner_reference_cache_evictions_total", "References that had to leave the cache for room."
        )
        self.cache_bytes = gauge(
            "limner_reference_cache_bytes", "Bytes in the cache, its own overhead included."
        )
        self.cache_entries = gauge("limner_reference_cache_entries", "References in the cache.")
        self.image_encodes = counter(
            "limner_image_encodes_total", "References that the engine's image encoder took.", "engine"
        )

        # The tiers of the reference cache.
        self.tier_lookups = counter(
            "limner_reference_tier_lookups_total",
            "References that a tier of the cache was asked for.",
            "tier",
            "outcome",
        )
        self.redis_seconds = histogram(
            "limner_redis_seconds", "Time of an operation on Redis.", _REDIS_SECONDS, "operation"
        )
        self.redis_faults = counter(
            "limner_redis_faults_total", "Operations on Redis that failed.", "operation", "kind"
        )
        self.redis_corrupt = counter(
            "limner_redis_corrupt_total", "Values in Redis that were not what was written there."
        )
        self.redis_writes = counter(
            "limner_redis_writes_total", "Writes of references to Redis that ended.", "outcome"
        )
        self.redis_waiting = gauge(
            "limner_redis_writes_waiting_bytes", "Bytes of references that wait to be written."
        )
        self.redis_repairs = gauge(
            "limner_redis_deletions_waiting", "Deletions that Redis has not heard yet."
        )
        self.redis_breaker = gauge(
            "limner_redis_breaker_state", "1 for the state that the breaker is in.", "lane", "state"
        )
        self.redis_opened = counter(
            "limner_redis_breaker_opened_total", "Times that the breaker opened.", "lane"
        )

        # Engines.
        self.engine_ready = gauge(
            "limner_engine_ready", "1 once the engine is warm and takes jobs, else 0.", "engine"
        )
        self.engine_load = gauge(
            "limner_engine_load_seconds", "Time to load the model at the last start.", "engine"
        )
        self.engine_warmup = gauge(
            "limner_engine_warmup_seconds", "Time to warm up and calibrate at the last start.", "engine"
        )
        self.engine_busy = counter(
            "limner_engine_busy_seconds_total",
            "Time that the engine worked: ticks, encoding, decoding.",
            "engine",
        )
        self.engine_restarts = counter(
            "limner_engine_restarts_total",
            "Engine processes that were started in place of a dead one.",
            "engine",
        )
        self.jobs_replayed = counter(
            "limner_jobs_replayed_total", "Jobs that were submitted again after their engine died.", "engine"
        )
        self.jobs_poisoned = counter(
            "limner_jobs_poisoned_total",
            "Jobs that were given up because two engines died with them in flight.",
        )
        self.engine_resident = gauge(
            "limner_engine_process_resident_memory_bytes", "Resident memory of the engine process.", "engine"
        )
        self.engine_cpu = counter(
            "limner_engine_process_cpu_seconds_total",
            "CPU time of the engine's processes, restarts included.",
            "engine",
        )

        # The server.
        self.ready = gauge("limner_ready", "1 while the server takes requests, else 0.")
        self.build = gauge("limner_build_info", "The release; always 1.", "version", "python_version")
        self.model = gauge(
            "limner_model_info",
            "The model that an engine serves; always 1.",
            "engine", "model", "family", "weights_hash", "backend", "device",
        )  # fmt: skip
        ProcessCollector(namespace="limner_server", registry=registry)

        # RPCs, by the names of go-grpc-prometheus, which dashboards know.
        rpc = ("grpc_type", "grpc_service", "grpc_method")
        self.rpc_started = counter("grpc_server_started_total", "RPCs that were started.", *rpc)
        self.rpc_handled = counter(
            "grpc_server_handled_total", "RPCs that ended, by code.", *rpc, "grpc_code"
        )
        self.rpc_seconds = histogram(
            "grpc_server_handling_seconds", "Time from an RPC's start to its end.", _RPC_SECONDS, *rpc
        )
