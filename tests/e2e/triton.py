"""NVIDIA's client of the Open Inference Protocol: ``python -m tests.e2e.triton TARGET MODEL REFERENCE KEY``.

It is a process of its own: the client registers the package ``inference`` for itself, as our stubs do, and a process
takes one of the two. Prints what it heard as JSON; pictures come in base64.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import np_to_triton_dtype


def main(target: str, name: str, reference: str, key: str) -> dict[str, Any]:
    """Ask everything that stock tools ask, then for a portrait."""
    client = triton.InferenceServerClient(target)
    server = client.get_server_metadata()
    model = client.get_model_metadata(name)
    inputs = [
        _input("prompt", np.array([b"a portrait at the beach, smiling"], np.object_)),
        _input("reference_image", np.array([Path(reference).read_bytes()], np.object_)),
        _input("seed", np.array([7], np.int64)),
        _input("steps", np.array([4], np.int32)),
    ]
    result = client.infer(
        model.name, inputs, request_id="7", parameters={"guidance_scale": 3.5, "idempotency_key": key}
    )
    faults = {}
    for label, wrong in (
        ("value", [inputs[0], _input("steps", np.array([100_000], np.int32))]),
        ("name", [inputs[0], _input("hat", np.array([1], np.int32))]),
    ):
        try:
            client.infer(model.name, wrong)
        except triton.InferenceServerException as error:
            faults[label] = [error.status(), error.message()]
    pixels = result.as_numpy("pixels")
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(model.name),
        "server": [server.name, server.version],
        "model": model.name,
        "inputs": {each.name: each.datatype for each in model.inputs},
        "outputs": {each.name: each.datatype for each in model.outputs},
        "image": base64.b64encode(result.as_numpy("image")[0]).decode(),
        "pixels": base64.b64encode(pixels.tobytes()).decode(),
        "shape": list(pixels.shape),
        "seed": result.as_numpy("seed").tolist(),
        "summary": json.loads(result.as_numpy("summary")[0]),
        "id": result.get_response().id,
        "faults": faults,
    }


def _input(name: str, array: Any) -> Any:
    kind = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return kind.set_data_from_numpy(array)


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
