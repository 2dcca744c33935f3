"""What the server tells its metrics, in its own words; no module outside this package calls
prometheus_client.
"""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from prometheus_client import CollectorRegistry, disable_created_metrics

from engine.protocol.messages import Finished, Ready, TickReport
from server.imaging.formats import PictureFormat
from server.metrics.collectors import Collectors
from server.metrics.engines import EngineObserver
from server.metrics.labels import Phase, RejectReason, RequestOutcome, RpcType, Stage
from server.metrics.redis import RedisMetrics
from server.metrics.rpcs import Exemplar, RpcObserver, no_exemplar
from server.references.record import CacheOutcome


class SizedCache(Protocol):
    """What is watched of a cache."""

    @property
    def bytes(self) -> int:
        """Bytes held."""
        ...

    def __len__(self) -> int: ...


class RequestObservation:
    """A request that is being observed; set ``outcome`` where the exception alone does not tell it."""

    __slots__ = ("outcome",)

    def __init__(self) -> None:
        self.outcome: RequestOutcome | None = None


class ServerMetrics:
    """The server's metrics, in a registry of their own.

    ``version`` is the release's; ``clock`` counts seconds; ``exemplar`` returns the labels that lead from a latency
    to its trace, or None.
    """

    def __init__(
        self,
        *,
        version: str,
        engines: Sequence[str] = ("0",),
        clock: Callable[[], float] = time.monotonic,
        exemplar: Exemplar = no_exemplar,
    ) -> None:
        # The client's `_created` gauges beside each series double the page, and nothing reads them. The
        # switch is the library's own global; no other user of it lives in this process.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._clock = clock
        self._exemplar = exemplar
        self._collectors = Collectors(self.registry)
        self._engines = EngineObserver(self._collectors)
        self._rpcs = RpcObserver(self._collectors, exemplar)
        self._cache_outcomes = {
            CacheOutcome.HIT: self._collectors.cache_hits,
            CacheOutcome.MISS: self._collectors.cache_misses,
            CacheOutcome.COALESCED: self._collectors.cache_coalesced,
        }
        self._memory_lookups = {
            is_hit: self._collectors.tier_lookups.labels("memory", outcome)
            for is_hit, outcome in ((True, "hit"), (False, "miss"))
        }
        self._collectors.build.labels(version, platform.python_version()).set(1)
        self._begin_at_zero(engines)

    # --- requests -------------------------------------------------------------------------------------------

    def request_started(self) -> None:
        """Count a request in flight; ``request_finished`` must follow."""
        self._collectors.requests_in_flight.inc()

    def request_finished(self, outcome: RequestOutcome, seconds: float) -> None:
        """Count it out, and observe its latency."""
        self._collectors.requests_in_flight.dec()
        self._collectors.request_seconds.labels(outcome.value).observe(seconds, self._exemplar())

    @contextmanager
    def request(self) -> Iterator[RequestObservation]:
        """Observe a request from here to the block's end.

        Without an ``outcome`` set, no exception is OK, ``asyncio.CancelledError`` is CANCELLED and any other
        FAILED.
        """
        observation, began = RequestObservation(), self._clock()
        ended = RequestOutcome.FAILED
        self.request_started()
        try:
            yield observation
            ended = RequestOutcome.OK
        except (asyncio.CancelledError, GeneratorExit):
            ended = RequestOutcome.CANCELLED
            raise
        finally:
            self.request_finished(observation.outcome or ended, self._clock() - began)

    def rejected(self, reason: RejectReason | str) -> None:
        """Count a request that was refused (a lower-case ``ErrorReason``; an unknown one counts as
        ``other``).
        """
        self._collectors.rejected.labels(RejectReason(reason).value).inc()

    def cancelled(self, phase: Phase | str) -> None:
        """Count a request that its caller cancelled (``Failed.phase``, or where the server had it)."""
        self._collectors.cancelled.labels(Phase(phase).value).inc()

    # --- stages ---------------------------------------------------------------------------------------------

    def stage_seconds(self, stage: Stage | str, seconds: float) -> None:
        """Observe a stage of a request."""
        self._collectors.stage_seconds.labels(Stage(stage).value).observe(seconds, self._exemplar())

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Observe the block as a stage; not when it raises."""
        began = self._clock()
        yield
        self.stage_seconds(stage, self._clock() - began)

    def imaging_wait(self, seconds: float) -> None:
        """Observe a wait for a thread of the imaging pool (``ImagingPool.observe_wait``)."""
        self._collectors.imaging_wait.observe(seconds)

    def image_made(self, format: PictureFormat) -> None:
        """Count an image that was encoded for a caller."""
        self._collectors.images.labels(format.value.lower()).inc()

    # --- references -----------------------------------------------------------------------------------------

    def cache(self, outcome: CacheOutcome) -> None:
        """Count a reference that was had, by where from."""
        self._cache_outcomes[outcome].inc()

    def memory(self, is_hit: bool) -> None:
        """Count a look-up in the memory tier of the reference cache."""
        self._memory_lookups[is_hit].inc()

    def redis(self) -> RedisMetrics:
        """Return what observes the shared tier; until then it has no series."""
        return RedisMetrics(self._collectors)

    def cache_evicted(self, *_: object) -> None:
        """Count an entry that had to go for room; takes what ``ReferenceCache.on_evict`` gives."""
        self._collectors.cache_evictions.inc()

    def watch_cache(self, cache: SizedCache) -> None:
        """Read the cache's bytes and entries at each scrape."""
        self._collectors.cache_bytes.set_function(lambda: cache.bytes)
        self._collectors.cache_entries.set_function(lambda: len(cache))

    # --- engines --------------------------------------------------------------------------------------------

    def engine_ready(self, ready: Ready, *, engine: str = "0") -> None:
        """Note that the engine takes jobs. ``engine`` is a short name, the same over restarts."""
        self._engines.ready(ready, engine)

    def engine_lost(self, *, engine: str = "0") -> None:
        """Note that the engine's process is gone; its gauges fall to 0."""
        self._engines.lost(engine)

    def engine_restarted(self, *, engine: str = "0") -> None:
        """Count a process that was started in place of a dead one."""
        self._collectors.engine_restarts.labels(engine).inc()

    def jobs_replayed(self, count: int, *, engine: str = "0") -> None:
        """Count jobs that were submitted again after their engine died."""
        self._collectors.jobs_replayed.labels(engine).inc(count)

    def job_poisoned(self) -> None:
        """Count a job that was given up because two engines died with it in flight."""
        self._collectors.jobs_poisoned.inc()

    def job_started(self, queue_seconds: float) -> None:
        """Observe a job's wait for its first tick (``Started.queue_seconds``)."""
        self._collectors.queue_wait.observe(queue_seconds, self._exemplar())

    def job_finished(self, finished: Finished) -> None:
        """Observe a job's stages in the engine."""
        self.stage_seconds(Stage.ENCODE_PROMPT, finished.encode_prompt_seconds)
        self.stage_seconds(Stage.DENOISE, finished.denoise_seconds)
        self.stage_seconds(Stage.DECODE_LATENTS, finished.decode_seconds)

    def tick(self, report: TickReport, *, engine: str = "0") -> None:
        """Observe a tick and the engine's state after it; bucket 0 is an idle engine's report."""
        self._engines.tick(report, engine)

    # --- the server itself ----------------------------------------------------------------------------------

    def ready(self, is_ready: bool) -> None:
        """Note whether the server takes requests (readiness)."""
        self._collectors.ready.set(int(is_ready))

    def declare_rpcs(self, methods: Mapping[str, RpcType]) -> None:
        """Name the RPCs that are served, as ``/limner.v1.PortraitService/Generate`` and the type.

        Their series begin at 0, and a stranger's method names never become labels.
        """
        self._rpcs.declare(methods)

    def rpc_started(self, method: str) -> None:
        """Count an RPC by its full method name; one that was not declared counts as ``unknown``."""
        self._rpcs.started(method)

    def rpc_handled(self, method: str, code: str, seconds: float) -> None:
        """Count its end with the name of the ``grpc.StatusCode`` (``OK``, ``NOT_FOUND``)."""
        self._rpcs.handled(method, code, seconds)

    def _begin_at_zero(self, engines: Sequence[str]) -> None:
        """Create the series of every bounded label, so that a first occurrence is an increase."""
        c = self._collectors
        for outcome in RequestOutcome:
            c.request_seconds.labels(outcome.value)
        for reason in RejectReason:
            c.rejected.labels(reason.value)
        for phase in Phase:
            c.cancelled.labels(phase.value)
        for stage in Stage:
            c.stage_seconds.labels(stage.value)
        for format in PictureFormat:  # noqa: A001 - the API's word
            c.images.labels(format.value.lower())
        for engine in engines:
            self._engines.expect(engine)
