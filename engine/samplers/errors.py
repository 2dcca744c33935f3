"""The errors that samplers raise for a caller's fault."""

from __future__ import annotations


class SamplerError(ValueError):
    """Report a request or a model configuration that no sampler can serve.

    Attributes:
        field: name of the offending request field or configuration key.
        limit: what would have been accepted, in words fit for an error message.
    """

    def __init__(self, message: str, *, field: str, limit: str) -> None:
        super().__init__(message)
        self.field = field
        self.limit = limit


class UnknownSamplerError(SamplerError):
    """Report a sampler name that is not in the registry; `limit` lists the names."""

    def __init__(self, name: str, names: tuple[str, ...]) -> None:
        limit = ", ".join(names)
        super().__init__(f"sampler: {name!r} is not one of {limit}", field="sampler", limit=limit)


class StepsOutOfRangeError(SamplerError):
    """Report a number of steps outside the sampler's limits; `limit` reads `1..200`."""

    def __init__(self, sampler: str, steps: int, min_steps: int, max_steps: int) -> None:
        limit = f"{min_steps}..{max_steps}"
        super().__init__(
            f"steps: {steps} is outside {limit} for sampler {sampler}", field="steps", limit=limit
        )


class SeedOutOfRangeError(SamplerError):
    """Report a seed, or an image index, that a signed 64-bit field cannot hold."""

    def __init__(self, field: str, value: int, limit: str) -> None:
        super().__init__(f"{field}: {value} is outside {limit}", field=field, limit=limit)


class UnsupportedScheduleError(SamplerError):
    """Report a `scheduler_config.json` whose noise schedule the samplers do not cover."""

    def __init__(self, field: str, value: object, limit: str) -> None:
        super().__init__(
            f"scheduler_config.{field}: {value!r} is not supported; expected {limit}",
            field=field,
            limit=limit,
        )
