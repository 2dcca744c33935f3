"""What the simulator refuses."""

from __future__ import annotations


class SimulationError(ValueError):
    """A setting or a file cannot be simulated; ``field`` names it and the message says the limit."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
