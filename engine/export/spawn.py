"""An export in a process of its own, so that what it takes (the model twice, several libraries) goes with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import structlog

from engine.export.errors import ExportFailedError
from engine.export.settings import ExportSettings

log = structlog.get_logger()


def export_in_child(root: Path, output: Path, settings: ExportSettings) -> None:
    """Run ``limner-engine export`` and log what it says. Raises ``ExportFailedError`` with its last words."""
    command = [sys.executable, "-m", "engine", "export", str(root), "--output", str(output)]
    command += ["--dtype", settings.dtype, "--opset", str(settings.chosen_opset)]
    if settings.adapter is not None:
        command += ["--adapter", settings.adapter]
    for lora in settings.loras:
        command += ["--lora", f"{lora.path}:{lora.scale}"]
    if settings.size is not None:
        command += ["--size", "{}x{}".format(*settings.size)]
    last = ""
    # Our own interpreter and module; no shell reads the paths.
    with subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stderr is not None
        for line in child.stderr:
            last = line.strip() or last
            log.info("export", line=last)
    if child.returncode:
        raise ExportFailedError(
            "the model could not be exported", path=root, found=last.removeprefix("limner-engine: ")
        )
