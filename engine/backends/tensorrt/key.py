"""What an engine was built for; it is used again only where all of it matches."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from engine.backends.tensorrt.profiles import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKey:
    """Everything that an engine depends on.

    gpu: name of the card, None for an engine that was built ahead of time. compute_capabilities: those it runs on.
    graph, weights: SHA-256 of the ONNX file and of the file of its weights (None where they are in the first).
    """

    backend: str
    version: str
    gpu: str | None
    compute_capabilities: tuple[str, ...]
    model: str
    graph: str
    weights: str | None
    dtype: str
    profiles: tuple[Profile, ...]
    flags: tuple[str, ...]
    level: int | None

    @property
    def buckets(self) -> tuple[int, ...]:
        """Batch sizes in rows."""
        return tuple(sorted({profile.rows for profile in self.profiles}))

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Latent sizes (height, width) in cells."""
        return tuple(sorted({(profile.height, profile.width) for profile in self.profiles}))

    @property
    def place(self) -> str:
        """Folder of such engines: what must not replace one another on a volume that different machines share."""
        device = self.gpu or "sm-" + "-".join(self.compute_capabilities)
        parts = (self.backend, self.model, device, self.dtype)
        return "/".join(re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip(".-") or "unnamed" for part in parts)

    def differences(self, built: EngineKey) -> list[str]:
        """Return why an engine that was built for another key does not do for this one; nothing if it does."""
        reasons = [
            f"built for {name} {show(built)}; asked {show(self)}"
            for name, show in _SHOWN.items()
            if show(built) != show(self)
        ]
        if not self._runs_on(built):
            reasons.append(f"built for {_device(built)}; this is {_device(self)}")
        return reasons

    def _runs_on(self, built: EngineKey) -> bool:
        if built.gpu is not None:
            return (built.gpu, built.compute_capabilities) == (self.gpu, self.compute_capabilities)
        return set(self.compute_capabilities) <= set(built.compute_capabilities)


def _device(key: EngineKey) -> str:
    capabilities = ", ".join(key.compute_capabilities)
    return (
        f"compute capability {capabilities}"
        if key.gpu is None
        else f"{key.gpu} (compute capability {capabilities})"
    )


def _tokens(key: EngineKey) -> str:
    pairs = sorted({(profile.text_tokens, profile.ip_tokens) for profile in key.profiles})
    return ", ".join(f"{text}+{ip}" for text, ip in pairs)


_SHOWN: dict[str, Callable[[EngineKey], str]] = {
    "backend": lambda key: f"{key.backend} {key.version}",
    "graph": lambda key: key.graph[:12],
    "weights": lambda key: (key.weights or "in the graph")[:12],
    "type": lambda key: key.dtype,
    "bucket": lambda key: ",".join(map(str, key.buckets)),
    "latents": lambda key: ",".join(f"{height}x{width}" for height, width in key.sizes),
    "tokens": _tokens,
    "flags": lambda key: ",".join(key.flags) or "none",
    "optimisation level": lambda key: "TensorRT's own" if key.level is None else str(key.level),
}
