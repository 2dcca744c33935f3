"""From the native API's answer to an inference response."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToJson
from limner.kserve.open_inference_grpc_pb2 import ModelInferRequest, ModelInferResponse
from limner.v1.portrait_service_pb2 import GenerateResponse
from numpy.typing import NDArray
from PIL import Image

from server.kserve.tensors import write_array, write_bytes


def inference_response(
    request: ModelInferRequest,
    answer: GenerateResponse,
    outputs: Sequence[str],
    *,
    version: str,
    pixels: NDArray[np.uint8] | None,
) -> ModelInferResponse:
    """Return the outputs in the order in which they are wanted; ``pixels`` are its ``pixels_of``, where wanted."""
    response = ModelInferResponse(
        model_name=answer.summary.parameters.model, model_version=version, id=request.id
    )
    response.parameters["task_id"].string_param = answer.task_id
    for name in outputs:
        match name:
            case "image":
                write_bytes(response, name, [image.data for image in answer.images])
            case "pixels" if pixels is not None:
                write_array(response, name, pixels)
            case "seed":
                seeds: NDArray[Any] = np.array([image.seed for image in answer.images], np.int64)
                write_array(response, name, seeds)
            case "summary":
                summary = MessageToJson(answer.summary, preserving_proto_field_name=True, indent=None)
                write_bytes(response, name, [summary.encode()])
            case _:
                raise AssertionError(name)
    return response


def pixels_of(answer: GenerateResponse) -> NDArray[np.uint8]:
    """Return ``[B, H, W, 3]`` of an answer's pictures. Blocks while it decodes them."""
    return np.stack([_pixels(image.data) for image in answer.images])


def _pixels(data: bytes) -> NDArray[np.uint8]:
    """Return ``[H, W, 3]`` of a picture that this server has just encoded."""
    with Image.open(BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
        return np.asarray(image.convert("RGB"))
