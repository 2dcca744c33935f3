"""The pipeline behind NVIDIA's Triton through PyTriton, with its dynamic batcher.

Source: triton-inference-server.github.io/pytriton, "Binding models" (``DynamicBatcher``) and "Decorators" (``@batch``).
"""

from __future__ import annotations

import base64
import json

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig
from pytriton.model_config import Tensor as Spec
from pytriton.triton import Triton, TritonConfig

from loadtests.peers.ask import parse_ask
from loadtests.peers.pipelines.batched import to_png
from loadtests.peers.serving.settings import parse_settings


def main() -> None:
    settings = parse_settings(__doc__)
    pipeline = settings.pipeline()

    @batch
    def generate(ask: np.ndarray) -> list[np.ndarray]:
        asks = [parse_ask(json.loads(row[0])) for row in ask]
        pictures = [base64.b64encode(to_png(picture)) for picture in pipeline.generate(asks)]
        return [np.array(pictures, dtype=np.bytes_)[:, None]]

    configuration = TritonConfig(
        http_port=settings.port,
        http_address="127.0.0.1",
        allow_grpc=False,
        allow_metrics=False,
        log_verbose=0,
    )
    with Triton(config=configuration) as triton:
        triton.bind(
            model_name="portrait",
            infer_func=generate,
            inputs=[Spec(name="ask", dtype=np.bytes_, shape=(1,))],
            outputs=[Spec(name="png", dtype=np.bytes_, shape=(1,))],
            config=ModelConfig(
                max_batch_size=settings.max_batch,
                batcher=DynamicBatcher(max_queue_delay_microseconds=round(settings.batch_seconds * 1e6)),
            ),
            strict=True,
        )
        triton.serve()


if __name__ == "__main__":
    main()
