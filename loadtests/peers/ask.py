"""One request as every peer receives it. Imports nothing that a peer's environment may lack."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any


class BadAskError(ValueError):
    """A request body that is not an `Ask`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A portrait to make: ``reference`` names a picture that the side holds already, as an uploaded one would be."""

    prompt: str
    reference: str
    steps: int
    guidance_scale: float
    sampler: str
    ip_adapter_scale: float
    seed: int

    @property
    def group(self) -> tuple[int, float, str, float]:
        """What all requests of one call of diffusers' pipeline share."""
        return self.steps, self.guidance_scale, self.sampler, self.ip_adapter_scale

    def to_json(self) -> str:
        """Return the request's body."""
        return json.dumps(asdict(self))


_TYPES: dict[str, type] = {
    "prompt": str,
    "reference": str,
    "steps": int,
    "guidance_scale": float,
    "sampler": str,
    "ip_adapter_scale": float,
    "seed": int,
}


def parse_ask(body: Any) -> Ask:
    """Return the `Ask` of a decoded JSON object. Raises ``BadAskError`` that names the field."""
    if not isinstance(body, dict):
        raise BadAskError(f"an object is needed, not {type(body).__name__}")
    names = {field.name for field in fields(Ask)}
    if body.keys() != names:
        raise BadAskError(f"fields missing or unknown: {', '.join(sorted(body.keys() ^ names))}")
    values: dict[str, Any] = {}
    for name, kind in _TYPES.items():
        value = body[name]
        if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
            raise BadAskError(f"{name} must be of type {kind.__name__}, not {type(value).__name__}")
        values[name] = kind(value)
    return Ask(**values)
