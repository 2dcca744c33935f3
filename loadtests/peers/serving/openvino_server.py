"""The pipeline converted to OpenVINO behind the same minimal HTTP server, request by request."""

from __future__ import annotations

import torch

from loadtests.peers.pipelines.openvino import OpenVinoPipeline
from loadtests.peers.serving.plain import bind
from loadtests.peers.serving.settings import parse_settings


def main() -> None:
    settings = parse_settings(__doc__)
    # OpenVINO has the threads; torch's would wait for work on its cores (docs/peers.md).
    torch.set_num_threads(1)
    pipeline = OpenVinoPipeline(
        settings.model, settings.references, threads=settings.threads, precision=settings.dtype
    )
    bind(pipeline, settings.port).serve_forever()


if __name__ == "__main__":
    main()
