"""What a model takes and gives, in the words of the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from limner.kserve.open_inference_grpc_pb2 import ModelMetadataResponse

from engine.protocol.messages import Ready
from server.kserve.settings import SETTINGS

OUTPUTS: Mapping[str, tuple[str, tuple[int, ...]]] = MappingProxyType(
    {
        "image": ("BYTES", (-1,)),
        "pixels": ("UINT8", (-1, -1, -1, 3)),
        "seed": ("INT64", (-1,)),
        "summary": ("BYTES", (1,)),
    }
)
"""Datatype and shape of each output; the first dimension counts images."""


def model_metadata(ready: Ready) -> ModelMetadataResponse:
    """Return a model's tensors."""
    model = ready.model
    tensor = ModelMetadataResponse.TensorMetadata
    inputs = [tensor(name=each.name, datatype=each.datatype, shape=[1]) for each in SETTINGS.values()]
    if model.adapters:
        inputs += [
            tensor(name="reference_image", datatype="BYTES", shape=[-1]),
            tensor(name="reference_digest", datatype="BYTES", shape=[-1]),
            tensor(name="reference_weight", datatype="FP32", shape=[-1]),
        ]
    inputs.append(tensor(name="idempotency_key", datatype="BYTES", shape=[1]))
    return ModelMetadataResponse(
        name=model.name,
        versions=[model.weights_hash],
        platform=f"limner_{model.family}",
        inputs=inputs,
        outputs=[
            tensor(name=name, datatype=datatype, shape=shape) for name, (datatype, shape) in OUTPUTS.items()
        ],
        properties={
            "family": model.family,
            "adapters": ",".join(adapter.name for adapter in model.adapters),
            "default_width": str(model.default_width),
            "default_height": str(model.default_height),
            "default_steps": str(model.default_steps),
            "default_sampler": model.default_sampler,
            "default_guidance_scale": f"{model.default_guidance_scale:g}",
        },
    )
