"""The pipeline behind Ray Serve with ``@serve.batch``, as its page on dynamic batching recommends.

``max_ongoing_requests`` is above the size of a batch, as that page asks.
Source: docs.ray.io, Serve, "Dynamic Request Batching".
"""

from __future__ import annotations

import signal

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from loadtests.peers.ask import Ask, parse_ask
from loadtests.peers.pipelines.batched import to_png
from loadtests.peers.serving.settings import ServingSettings, parse_settings

OBJECT_STORE_BYTES = 100 * 2**20
"""The smallest that fits: asks and pictures are small, and the default would take a third of the machine."""


def deployment(settings: ServingSettings) -> serve.Application:
    """Return the application of one replica that takes all threads."""

    @serve.deployment(
        num_replicas=1,
        max_ongoing_requests=8 * settings.max_batch,
        ray_actor_options={"num_cpus": settings.threads},
    )
    class Portraits:
        def __init__(self) -> None:
            self._pipeline = settings.pipeline()

        @serve.batch(max_batch_size=settings.max_batch, batch_wait_timeout_s=settings.batch_seconds)
        async def generate(self, asks: list[Ask]) -> list[bytes]:
            return [to_png(picture) for picture in self._pipeline.generate(asks)]

        async def __call__(self, request: Request) -> Response:
            ask = parse_ask(await request.json())
            return Response(await self.generate(ask), media_type="image/png")

    return Portraits.bind()  # type: ignore[attr-defined]


def main() -> None:
    settings = parse_settings(__doc__)
    ray.init(
        num_cpus=settings.threads + 1,  # the controller and the proxy count as well
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": settings.port})
    serve.run(deployment(settings), route_prefix="/")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
