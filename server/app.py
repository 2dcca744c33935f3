"""The server put together: what is built, in which order it starts, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from importlib import metadata

import grpc
from grpc_health.v1 import health_pb2_grpc
from limner.v1 import model_service_pb2_grpc, portrait_service_pb2_grpc, reference_service_pb2_grpc
from structlog.typing import FilteringBoundLogger

from server.api.access_log import AccessLog
from server.api.call_metrics import CallMetrics
from server.api.call_traces import CallTraces
from server.api.gate import Gate
from server.api.health import Health
from server.api.interceptor import CallInterceptor
from server.api.model_servicer import ModelServicer
from server.api.portrait_servicer import PortraitServicer
from server.api.reference_servicer import ReferenceServicer
from server.api.reflection import reflection_handlers
from server.api.services import rpc_types, served
from server.config import Config
from server.config.redis import shown_address
from server.credentials import server_credentials
from server.engine_link.launcher import Launcher
from server.engines import build_engines
from server.imaging.decode import ImageLimits
from server.imaging.pool import ImagingPool
from server.metrics.gpu import register_gpus
from server.metrics.observer import ServerMetrics
from server.portraits.admission import Admission
from server.portraits.generator import Generator
from server.portraits.idempotency import IdempotentGenerations
from server.ports import bind, grpc_options
from server.ready_file import ReadyFile
from server.references.cache import ReferenceCache
from server.references.library import ReferenceLibrary
from server.references.shared.build import build_shared_tier
from server.side_ports import SidePorts
from server.tracing.choice import choose_tracing
from server.tracing.trace import exemplar

END_SECONDS = 1.0
"""For calls that are ended to say so."""

STOP_SECONDS = 1.0
"""For gRPC to send what is still to be sent; it returns at once when nothing is."""


class App:
    """One server. ``start``, then ``drain`` or ``stop``; build it inside a running event loop. Raises ``ConfigError``.

    ``launchers`` start the engines of ``served_models``, one each, in their order.
    """

    def __init__(self, config: Config, launchers: Sequence[Launcher], log: FilteringBoundLogger) -> None:
        self._config = config
        self._log = log
        self._version = version = metadata.version("limner")
        self.tracing = choose_tracing(config.tracing, version=version)
        self.metrics = ServerMetrics(
            version=version, engines=[str(number) for number in range(len(launchers))], exemplar=exemplar
        )
        self._services = served(kserve=config.kserve.enabled)
        self.health = Health(service.full_name for service in self._services)
        self.gate = Gate()
        self.admission = Admission(config.admission.max_requests_in_flight)
        self._ready_file = ReadyFile(config.listen.ready_file)
        self._draining = False
        self.addresses: list[str] = []
        self.side_ports = SidePorts()
        self.engines = build_engines(
            config.engine, launchers, metrics=self.metrics, log=log, on_readiness=self._on_readiness
        )
        self._decoding = ImagingPool(
            workers=config.imaging.decode_threads,
            max_waiting=config.admission.max_pictures_waiting,
            observe_wait=self.metrics.imaging_wait,
        )
        # Every image and one preview of each can wait here: admission has let them in. So can an answer's pixels.
        self._encoding = ImagingPool(
            workers=config.imaging.encode_threads,
            max_waiting=2 * config.admission.max_requests_in_flight * config.limits.max_images
            + (config.admission.max_concurrent_rpcs if config.kserve.enabled else 0),
            observe_wait=self.metrics.imaging_wait,
        )
        cache = ReferenceCache(
            capacity_bytes=config.references.cache_bytes, on_evict=self.metrics.cache_evicted
        )
        self.metrics.watch_cache(cache)
        self.shared = build_shared_tier(config.redis, self.metrics.redis()) if config.redis.url else None
        self.references = ReferenceLibrary(
            cache=cache,
            encoder=self.engines,
            pool=self._decoding,
            limits=ImageLimits(
                max_bytes=config.limits.max_image_bytes,
                max_pixels=config.limits.max_image_pixels,
                min_side=config.limits.min_image_side,
            ),
            observer=self.metrics,
            shared=self.shared,
        )
        self.idempotency = IdempotentGenerations(
            ttl=config.idempotency.ttl_seconds, max_bytes=config.idempotency.max_bytes
        )
        self._credentials = server_credentials(config.tls, log)
        self._server = self._build_server()

    def _build_server(self) -> grpc.aio.Server:
        config = self._config
        methods = rpc_types(self._services)
        self.metrics.declare_rpcs(methods)
        access_log = AccessLog(self._log, prompts=config.log.prompts)
        interceptor = CallInterceptor(
            methods=methods,
            gate=self.gate,
            observer=CallMetrics(self.metrics),
            traces=CallTraces(self.tracing),
            access_log=access_log,
            log=self._log,
        )
        server = grpc.aio.server(
            interceptors=[interceptor],
            options=grpc_options(config.limits, config.listen),
            maximum_concurrent_rpcs=config.admission.max_concurrent_rpcs,
        )
        generator = Generator(
            engines=self.engines,
            references=self.references,
            pool=self._encoding,
            admission=self.admission,
            observer=self.metrics,
            is_ending=lambda: self.gate.is_ending,
        )
        portraits = PortraitServicer(
            generator=generator,
            engines=self.engines,
            limits=config.limits,
            idempotency=self.idempotency,
            access_log=access_log,
        )
        portrait_service_pb2_grpc.add_PortraitServiceServicer_to_server(portraits, server)  # type: ignore[no-untyped-call]
        if config.kserve.enabled:
            self._add_kserve(portraits, server)
        reference_service_pb2_grpc.add_ReferenceServiceServicer_to_server(  # type: ignore[no-untyped-call]
            ReferenceServicer(
                references=self.references,
                engines=self.engines,
                admission=self.admission,
                limits=config.limits,
            ),
            server,
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(  # type: ignore[no-untyped-call]
            ModelServicer(
                engines=self.engines,
                limits=config.limits,
                max_requests_in_flight=config.admission.max_requests_in_flight,
            ),
            server,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        names = [service.full_name for service in self._services]
        server.add_generic_rpc_handlers(reflection_handlers([*names, "grpc.health.v1.Health"]))
        return server

    def _add_kserve(self, portraits: PortraitServicer, server: grpc.aio.Server) -> None:
        from limner.kserve import open_inference_grpc_pb2_grpc

        from server.kserve.servicer import InferenceServicer

        open_inference_grpc_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(  # type: ignore[no-untyped-call]
            InferenceServicer(
                portraits=portraits,
                engines=self.engines,
                version=self._version,
                pool=self._encoding,
                is_ready=lambda: self.health.is_ready,
                is_draining=lambda: self._draining,
            ),
            server,
        )

    async def start(self) -> None:
        """Bind, answer health checks, then start the engines. Raises ``BindError`` and ``OSError``."""
        began = time.perf_counter()
        listen = self._config.listen
        self.addresses = bind(self._server, listen, self._credentials)
        await self.side_ports.start(listen, health=self.health, registry=self.metrics.registry)
        await self._server.start()
        self._ready_file.listening(
            self.addresses, health=self.side_ports.health_address, metrics=self.side_ports.metrics_url
        )
        self._log.info(
            "listening",
            grpc=self.addresses,
            tls=bool(self._config.tls.certificate_file),
            health=self.side_ports.health_address,
            metrics=self.side_ports.metrics_url,
            start_seconds=round(time.perf_counter() - began, 3),
        )
        if self.shared is not None:
            self._log.info("references_shared", redis=shown_address(self._config.redis))
        self.engines.start()
        # Opening the driver can take a while, and health is answered meanwhile.
        await asyncio.to_thread(register_gpus, self.metrics.registry)

    async def drain(self) -> None:
        """Say NOT_SERVING, wait for that to be noticed, refuse new calls, and let those in flight end."""
        drain = self._config.drain
        self._draining = True
        self.health.set_ready(False)
        self.metrics.ready(False)
        self._ready_file.ready(False)
        self._log.info("draining", in_flight=self.gate.in_flight, notice_seconds=drain.notice_seconds)
        await asyncio.sleep(drain.notice_seconds)
        self.gate.close()
        try:
            async with asyncio.timeout(drain.grace_seconds):
                await self.gate.wait_until_empty()
        except TimeoutError:
            self._log.warning("drain_incomplete", in_flight=self.gate.in_flight)
            await self._end_calls()

    async def stop(self, *, at_once: bool = False) -> None:
        """End: what calls are left, the watches, the engines last."""
        self._draining = True
        await self._end_calls()
        self.health.set_ready(False)
        self.health.close()
        await self._server.stop(STOP_SECONDS)
        await self.references.close()
        if self.shared is not None:
            await self.shared.store.close()
        await self.engines.stop(at_once=at_once)
        self._decoding.close()
        self._encoding.close()
        await self.tracing.close()
        await self.side_ports.stop()
        self._ready_file.remove()
        self._log.info("stopped")

    async def _end_calls(self) -> None:
        """End every call in flight with ``DrainingError``, and wait a moment for that to be said."""
        self.gate.end_all()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await self.gate.wait_until_empty()

    def _on_readiness(self, _: bool) -> None:
        """Follow the engines: the server is ready when each of them is."""
        if name := self.engines.ambiguous_name:
            self._log.critical(
                "model_name_ambiguous", model=name, hint="name one in engine.model or engine.models"
            )
            self.engines.default.cannot_start.set()
            return
        is_ready = self.engines.are_ready
        if not self._draining and is_ready != self.health.is_ready:
            self.health.set_ready(is_ready)
            self.metrics.ready(is_ready)
            self._ready_file.ready(is_ready)
            self._log.info("readiness", ready=is_ready)
