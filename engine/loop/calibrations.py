"""What warm-up measured, kept beside the engine that it measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec
import structlog
import torch

from engine.backends.base import Backend, LatentShape
from engine.files.replacement import replacing

from .decoding import DecodePlan
from .preview import LatentPreview
from .warmup import Calibration, calibrate, warm

log = structlog.get_logger()

FORMAT = 1


@runtime_checkable
class KeepsCalibration(Protocol):
    """A backend whose speed is the same at every start, as long as the key is."""

    calibration_file: Path | None
    """Where it is kept; None where there is no place."""
    calibration_key: dict[str, str]
    """Everything that the times depend on: engine, GPU, driver, versions."""


class StoredCalibration(msgspec.Struct, frozen=True, kw_only=True):
    """A ``Calibration`` and what it holds for, as the file has it."""

    format: int
    key: dict[str, str]
    shape: LatentShape
    tick_seconds: dict[int, float]
    decode_seconds: dict[int, float]
    decode_batch: int
    preview_weight: list[list[float]]
    preview_bias: list[float]


def calibrate_or_recall(
    backend: Backend,
    buckets: Sequence[int],
    clock: Callable[[], float],
    *,
    decode_batch: int,
    patience_ticks: int,
    reference_batch: int,
) -> Calibration:
    """Return the stored calibration after running every bucket once, or measure and store one.

    Either way every part of the backend has run when this returns. Raises ``BackendBrokenError``, and what the backend
    raises.
    """
    path = backend.calibration_file if isinstance(backend, KeepsCalibration) else None
    key: dict[str, str] = {}
    if isinstance(backend, KeepsCalibration):
        settings = {"buckets": str(list(buckets)), "decode_batch": str(decode_batch)}
        key = {**backend.calibration_key, **settings}
    stored = None if path is None else _read(path, key)
    if stored is not None:
        warm(backend, buckets, sorted(stored.decode_seconds), stored.shape, reference_batch=reference_batch)
        return Calibration(
            shape=stored.shape,
            tick_seconds=stored.tick_seconds,
            decode_seconds=stored.decode_seconds,
            decode_plan=DecodePlan(batch=stored.decode_batch, patience_ticks=patience_ticks),
            preview=LatentPreview(
                weight=torch.tensor(stored.preview_weight, device=backend.device),
                bias=torch.tensor(stored.preview_bias, device=backend.device),
            ),
        )
    measured = calibrate(
        backend,
        buckets,
        clock,
        decode_batch=decode_batch,
        patience_ticks=patience_ticks,
        reference_batch=reference_batch,
    )
    if path is not None and set(measured.tick_seconds) == set(buckets):
        _write(path, key, measured)
    return measured


def _read(path: Path, key: dict[str, str]) -> StoredCalibration | None:
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=StoredCalibration)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("stored calibration cannot be read, measuring again", file=str(path), error=str(error))
        return None
    if stored.format != FORMAT or stored.key != key:
        different = [name for name in {**key, **stored.key} if key.get(name) != stored.key.get(name)]
        log.info(
            "stored calibration is of something else, measuring again", file=str(path), different=different
        )
        return None
    return stored


def _write(path: Path, key: dict[str, str], measured: Calibration) -> None:
    stored = StoredCalibration(
        format=FORMAT,
        key=key,
        shape=measured.shape,
        tick_seconds=measured.tick_seconds,
        decode_seconds=measured.decode_seconds,
        decode_batch=measured.decode_plan.batch,
        preview_weight=measured.preview.weight.tolist(),
        preview_bias=measured.preview.bias.tolist(),
    )
    try:
        with replacing(path) as draft:
            draft.write_bytes(msgspec.json.format(msgspec.json.encode(stored), indent=1) + b"\n")
    except OSError as error:
        log.warning(
            "calibration is not kept, the next start measures again", file=str(path), error=str(error)
        )
