"""The pipeline behind LitServe, with ``max_batch_size`` and ``batch_timeout`` as its page on batching recommends.

Source: lightning.ai/docs/litserve/features/batching.
"""

# LitServe reads the annotations of `decode_request` and `encode_response`: they must not be strings.

from typing import Any

import litserve
from fastapi import Request, Response
from PIL import Image

from loadtests.peers.ask import Ask, parse_ask
from loadtests.peers.pipelines.batched import PeerPipeline, to_png
from loadtests.peers.serving.settings import ServingSettings, parse_settings


class PortraitApi(litserve.LitAPI):
    """Decodes an `Ask`, generates a list of them, encodes a PNG."""

    def __init__(self, settings: ServingSettings) -> None:
        super().__init__(max_batch_size=settings.max_batch, batch_timeout=settings.batch_seconds)
        self._serving = settings
        self._pipeline: PeerPipeline | None = None

    def setup(self, device: str) -> None:
        """Load the pipeline in the worker's process."""
        self._pipeline = self._serving.pipeline()

    def decode_request(self, request: Request, **_: Any) -> Ask:
        return parse_ask(request)  # the annotation asks for the decoded JSON body

    def batch(self, inputs: list[Ask]) -> list[Ask]:
        """Keep the list: asks are not tensors to stack."""
        return inputs

    def predict(self, x: list[Ask], **_: Any) -> list[Image.Image]:
        assert self._pipeline is not None
        return self._pipeline.generate(x)

    def unbatch(self, output: list[Image.Image]) -> list[Image.Image]:
        return output

    def encode_response(self, output: Image.Image, **_: Any) -> Response:
        return Response(to_png(output), media_type="image/png")


def main() -> None:
    settings = parse_settings(__doc__)
    server = litserve.LitServer(
        PortraitApi(settings), accelerator="cpu", workers_per_device=settings.workers, timeout=False
    )
    server.run(host="127.0.0.1", port=settings.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
