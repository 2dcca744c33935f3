"""The engine's configuration, and the one place where its flags are read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

from engine.models.lora_choice import LoraChoice

DEFAULT_BACKENDS = {"cpu": "openvino", "cuda": "torch"}
"""What computes on a kind of device where nothing was chosen. The server leaves it to the engine, so it stands here."""

CPU_LIBRARIES = ("openvino", "onnxruntime")
"""Backends that compute on the CPU by a library with threads of its own."""


def default_cache_dir() -> Path:
    """Return ``limner`` in the user's cache directory: ``XDG_CACHE_HOME``, or ``~/.cache``."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    # The specification ignores relative paths.
    base = Path(given) if Path(given).is_absolute() else Path.home() / ".cache"
    return base / "limner"


class ConfigError(ValueError):
    """A setting is out of range; ``field`` names it."""

    def __init__(self, field: str, value: object, limit: str) -> None:
        super().__init__(f"{field} is {value}; {limit}")
        self.field = field


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """All settings of an engine process. Raises ``ConfigError``.

    model: directory in diffusers' layout, or an export of one for a compiled backend; None for the shipped model.
    backend: what computes; ``engine.backends.registry`` lists the names. None chooses by device (``chosen_backend``).
    adapter: the default one, a file in the model's ``ip_adapter/`` without suffix; None where there is only one, or
        where ``limner.json`` names it.
    loras: LoRAs to fuse into the model's weights, beside those in its ``lora/``.
    device, dtype: as torch names them; the type ``auto`` leaves it to the backend, ``int8`` is for ``openvino`` and a
        model that was calibrated.
    threads: CPU threads of the backend; None leaves their number to it.
    lanes: parts of a tick's rows that run at the same time, each on its share of the threads, so at most ``threads``;
        a bucket takes the most that divide its rows evenly. For ``openvino``.
    cache_dir: where exports, compiled graphs and engines are kept; None for ``default_cache_dir``.
    buckets: batch sizes in rows to use, of those that the backend has; None for all.
    deterministic_bucket: the one bucket of ticks that hold a deterministic image, a power of two; None chooses
        the largest up to 4, which costs little when such an image runs by itself.
    prompt_cache_bytes: prompt embeddings to keep; 0 keeps none.
    reference_batch: pictures in one call of the image encoder, padded up to it (`engine.loop.references` says why).
    decode_batch: images in one call of the VAE, at most; warm-up chooses fewer where that is no slower.
    decode_patience_ticks: ticks that a finished image waits for others to be decoded with it.
    max_waiting, aging_seconds, headroom: see ``engine.scheduling.Policy``.
    """

    model: Path | None = None
    backend: str | None = None
    adapter: str | None = None
    loras: tuple[LoraChoice, ...] = ()
    device: str = "cpu"
    dtype: str = "auto"
    threads: int | None = None
    lanes: int = 1
    cache_dir: Path | None = None
    buckets: tuple[int, ...] | None = None
    deterministic_bucket: int | None = None
    prompt_cache_bytes: int = 64 << 20
    reference_batch: int = 4
    decode_batch: int = 4
    decode_patience_ticks: int = 2
    max_waiting: int = 256
    aging_seconds: float = 30.0
    headroom: float = 1.1

    def __post_init__(self) -> None:
        _check("threads", self.threads, 1, 1024)
        _check("lanes", self.lanes, 1, 64 if self.threads is None else min(64, self.threads))
        _check("deterministic_bucket", self.deterministic_bucket, 1, 1024)
        _check("prompt_cache_bytes", self.prompt_cache_bytes, 0, inf)
        _check("reference_batch", self.reference_batch, 1, 256)
        _check("decode_batch", self.decode_batch, 1, 64)
        _check("decode_patience_ticks", self.decode_patience_ticks, 0, 100)
        _check("max_waiting", self.max_waiting, 1, 1_000_000)
        _check("aging_seconds", self.aging_seconds, 0, 86_400)
        _check("headroom", self.headroom, 1, 100)
        if self.buckets is not None and (not self.buckets or min(self.buckets) < 1):
            raise ConfigError("buckets", self.buckets, "at least one positive size is needed")
        bucket = self.deterministic_bucket
        if bucket is not None and bucket.bit_count() != 1:
            raise ConfigError("deterministic_bucket", bucket, "a power of two is needed")

    @property
    def chosen_backend(self) -> str:
        """The backend's name: the one asked for, or the default for this kind of device."""
        return self.backend or DEFAULT_BACKENDS.get(self.device.partition(":")[0], "torch")

    @property
    def torch_threads(self) -> int | None:
        """Threads for torch's own operators; None leaves their number to torch.

        One where another library computes on the CPU: what is left to torch there are a few small operators a tick,
        and OpenMP's threads, which wait for the next of them in a loop, would take a core from that library.
        """
        return 1 if self.chosen_backend in CPU_LIBRARIES else self.threads

    def buckets_of(self, offered: Sequence[int]) -> tuple[int, ...]:
        """Return the buckets to use of those that the backend offers. Raises ``ConfigError``."""
        if self.buckets is None:
            return tuple(sorted(offered))
        missing = set(self.buckets) - set(offered)
        if missing:
            raise ConfigError("buckets", self.buckets, f"the backend has {sorted(offered)}")
        return tuple(sorted(set(self.buckets)))

    def deterministic_bucket_of(self, buckets: Sequence[int]) -> int:
        """Return the bucket of deterministic images. Raises ``ConfigError``."""
        powers = [bucket for bucket in buckets if bucket.bit_count() == 1]
        if self.deterministic_bucket is not None:
            if self.deterministic_bucket not in powers:
                limit = f"one of {powers} is needed"
                raise ConfigError("deterministic_bucket", self.deterministic_bucket, limit)
            return self.deterministic_bucket
        if not powers:
            raise ConfigError("buckets", list(buckets), "deterministic images need one power of two")
        return max((bucket for bucket in powers if bucket <= 4), default=min(powers))


def _check(field: str, value: float | None, least: float, most: float) -> None:
    if value is not None and not least <= value <= most:
        raise ConfigError(field, value, f"{least:g} to {most:g} is possible")
