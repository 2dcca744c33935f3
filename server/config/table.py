"""The options as a table, read off the structs: what the sources, the flags and the documentation share."""

from __future__ import annotations

from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from server.config.options import Config

ENVIRONMENT_PREFIX = "LIMNER_"
FLAG_ALIASES = {
    "listen.host": "--host",
    "listen.port": "--port",
    "listen.metrics_port": "--metrics-port",
    "listen.ready_file": "--ready-file",
    "engine.model": "--model",
    "engine.device": "--device",
}
"""Short flags for what is set most often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option. ``type`` is its annotation, bounds included."""

    section: str
    name: str
    type: Any
    default: Any
    description: str
    bounds: str

    @property
    def key(self) -> str:
        """The name in the file: ``limits.max_steps``."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable: ``LIMNER_LIMITS_MAX_STEPS``."""
        return f"{ENVIRONMENT_PREFIX}{self.section}_{self.name}".upper()

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags: ``--limits-max-steps``, and a short one for some."""
        long = f"--{self.section}-{self.name}".replace("_", "-")
        return (FLAG_ALIASES[self.key], long) if self.key in FLAG_ALIASES else (long,)

    @property
    def is_flag_alone(self) -> bool:
        """Whether the flag alone, without a value, means true."""
        return self.type.__origin__ is bool

    @property
    def is_list(self) -> bool:
        """Whether text is split at commas."""
        return get_origin(self.type.__origin__) is tuple

    def convert(self, value: Any, *, text: bool) -> Any:
        """Return the value in the option's type; ``text`` takes it spelt out. Raises ``msgspec.ValidationError``."""
        if text and self.is_list:
            value = [part.strip() for part in value.split(",") if part.strip()]
        return msgspec.convert(value, self.type, strict=not text)


def all_options() -> tuple[Option, ...]:
    """Return every option, in the order of the sections."""
    return tuple(
        Option(
            section=section.name,
            name=field.name,
            type=hint,
            default=field.default,
            description=str(hint.__metadata__[0].description),
            bounds=_bounds(hint),
        )
        for section in msgspec.structs.fields(Config)
        for field in msgspec.structs.fields(section.type)
        for hint in [get_type_hints(section.type, include_extras=True)[field.name]]
    )


def _bounds(hint: Any) -> str:
    kind, meta = hint.__origin__, hint.__metadata__[0]
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if get_origin(kind) is tuple:
        return f"list of {'str' if get_args(kind)[0] is str else 'int'}"
    assert not isinstance(kind, UnionType)
    name: str = kind.__name__
    if meta.ge is not None and meta.le is not None:
        return f"{name}, {meta.ge} to {meta.le}"
    if meta.ge is not None:
        return f"{name}, at least {meta.ge}"
    if meta.gt is not None:
        return f"{name}, above {meta.gt}"
    return name
