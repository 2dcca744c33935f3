"""What OpenVINO leaves behind in the thread that compiles."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.compiled import exported
from tests.compiled.graphs import unet
from tests.tinymodels import build_tiny_model

OVERLAPPING = """
import json, signal, sys
from pathlib import Path

from engine.backends.compiled.openvino_runtime import OpenVINORuntime, OpenVINOSettings
from engine.export.directory import ExportDirectory

handled = []
signal.signal(signal.SIGUSR1, lambda *_: handled.append("handled"))
export, shapes = ExportDirectory.open(Path(sys.argv[1])), json.loads(sys.argv[2])
runtimes = []
for _ in range(2):
    runtimes.append(OpenVINORuntime(OpenVINOSettings(threads=1)))
    runtimes[-1].compile(export, "unet", shapes)
while runtimes:
    runtimes.pop(0)
signal.raise_signal(signal.SIGUSR1)
print(*handled)
"""


def test_signals_are_handled_after_runtimes_that_overlapped(tmp_path: Path) -> None:
    root = build_tiny_model(tmp_path / "model")
    shapes = {port.any_name: list(port.shape) for port in unet(root).inputs}
    command = [sys.executable, "-c", OVERLAPPING, str(exported(root).root), json.dumps(shapes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "handled"), done.stderr
