"""NVIDIA's client of the Open Inference Protocol against the model in the box."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import grpc
import numpy as np
from limner.v1.model_service_pb2 import ListModelsRequest
from limner.v1.model_service_pb2_grpc import ModelServiceStub
from limner.v1.portrait_pb2 import PortraitSpec
from limner.v1.portrait_service_pb2 import GenerateRequest
from limner.v1.portrait_service_pb2_grpc import PortraitServiceStub
from PIL import Image

ROOT = Path(__file__).parents[2]


def test_a_stock_client_gets_the_native_apis_portrait(server, references):
    with grpc.insecure_channel(server.target) as channel:
        (model,) = ModelServiceStub(channel).ListModels(ListModelsRequest()).models
        spec = PortraitSpec(
            prompt="a portrait at the beach, smiling",
            reference_image=references[0].read_bytes(),
            seed=7,
            steps=4,
            guidance_scale=3.5,
            model=model.name,
        )
        portraits = PortraitServiceStub(channel)
        alone = portraits.Generate(GenerateRequest(portrait=spec), timeout=120)
        kept = portraits.Generate(GenerateRequest(portrait=spec, idempotency_key="beach"), timeout=120)

        def heard(key: str) -> dict:
            command = [sys.executable, "-m", "tests.e2e.triton", server.target, model.name]
            done = subprocess.run(
                [*command, str(references[0]), key], capture_output=True, text=True, timeout=120, cwd=ROOT
            )
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        told = heard("another")
        assert (told["live"], told["ready"], told["model_ready"]) == (True, True, True)
        assert told["server"] == ["limner", metadata.version("limner")]
        assert told["inputs"]["prompt"] == told["inputs"]["reference_image"] == "BYTES"
        assert told["outputs"] == {"image": "BYTES", "pixels": "UINT8", "seed": "INT64", "summary": "BYTES"}
        assert (told["id"], told["seed"]) == ("7", [7])
        assert told["summary"]["reference"]["digest"] == alone.summary.reference.digest
        # Made anew it is the same picture; a file has the name of its task in it.
        native = np.asarray(Image.open(io.BytesIO(alone.images[0].data)).convert("RGB"))
        pixels = np.frombuffer(base64.b64decode(told["pixels"]), np.uint8).reshape(told["shape"])
        assert (pixels[0] == native).all()
        assert native.std() > 10
        # With the idempotency key of a native call it is that call's very file.
        assert base64.b64decode(heard("beach")["image"]) == kept.images[0].data
        value, name = told["faults"]["value"], told["faults"]["name"]
        assert value[0] == name[0] == "StatusCode.INVALID_ARGUMENT"
        assert "portrait.steps: is 100000" in value[1]
        assert "inputs[hat]: has no meaning here" in name[1]
