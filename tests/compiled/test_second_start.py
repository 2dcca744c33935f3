"""The second start of a compiled backend compiles nothing and needs nothing of what made the export."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.backends.compiled.backend import CompiledBackend, CompiledSettings
from engine.backends.compiled.blobs import BlobCache
from engine.backends.compiled.openvino_runtime import OpenVINORuntime, OpenVINOSettings
from tests.compiled import exported
from tests.tinymodels import build_tiny_model

START = """
import json, sys, time
from pathlib import Path
from engine.config import EngineConfig
from engine.loop.process import load_backend
from engine.loop.warmup import calibrate

model, cache, backend = sys.argv[1:]
config = EngineConfig(model=Path(model), cache=Path(cache), backend=backend, buckets=(2, 4), threads=1)
loaded = load_backend(config)
calibrate(loaded, (2, 4), time.monotonic, decode_batch=2, patience_ticks=2, reference_batch=2)
print(json.dumps({
    "compiled": getattr(loaded.runtime, "compiled", None),
    "modules": sorted({name.partition(".")[0] for name in sys.modules}),
}))
"""

HEAVY = {"diffusers", "transformers", "onnx", "onnxscript", "accelerate", "grpc"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def start(model: Path, cache: Path, backend: str) -> dict[str, object]:
    command = [sys.executable, "-c", START, str(model), str(cache), backend]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_openvino(root: Path, tmp_path: Path) -> None:
    first, second = (start(root, tmp_path, "openvino") for _ in range(2))
    assert isinstance(first["compiled"], int) and first["compiled"] >= 7
    assert second["compiled"] == 0
    for run in (first, second):  # the export itself is made in a process of its own
        assert not HEAVY & set(run["modules"])  # type: ignore[call-overload]
        assert "onnxruntime" not in run["modules"]  # type: ignore[operator]
    assert len(list((tmp_path / "exports").glob("model-float32-*/manifest.json"))) == 1


def test_onnx_runtime(root: Path, tmp_path: Path) -> None:
    run = start(exported(root).root, tmp_path, "onnxruntime")
    assert not (HEAVY | {"openvino"}) & set(run["modules"])  # type: ignore[call-overload]


def make(root: Path, cache: Path) -> int:
    """Start a backend in this process and return how many graphs it compiled."""
    runtime = OpenVINORuntime(OpenVINOSettings(threads=1, cache=cache))
    backend = CompiledBackend(exported(root), runtime, CompiledSettings(buckets=(2,)))
    backend.encode_prompts(["a portrait"])
    return runtime.compiled


def test_damaged_compiled_graphs_are_compiled_again(root: Path, tmp_path: Path) -> None:
    assert make(root, tmp_path) == 3
    assert make(root, tmp_path) == 0
    truncated, flipped, foreign = sorted(tmp_path.glob("*.blob"))
    truncated.write_bytes(truncated.read_bytes()[:-1])
    content = bytearray(flipped.read_bytes())
    content[-1] ^= 1
    flipped.write_bytes(content)
    # Whole, but nothing that OpenVINO wrote.
    BlobCache(tmp_path).write(foreign, b"not a compiled graph" * 100)
    assert make(root, tmp_path) == 3
    assert make(root, tmp_path) == 0


def test_other_settings_compile_anew(root: Path, tmp_path: Path) -> None:
    make(root, tmp_path)
    runtime = OpenVINORuntime(OpenVINOSettings(threads=2, cache=tmp_path))
    CompiledBackend(exported(root), runtime, CompiledSettings(buckets=(2,)))
    assert runtime.compiled == 2


def test_a_folder_that_cannot_be_written_costs_time_alone(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert make(root, tmp_path / "file" / "openvino") == 3
    assert make(root, tmp_path / "file" / "openvino") == 3
