"""Average weights over training, and write checkpoints atomically."""

from pathlib import Path
from typing import Any

import torch
from torch import nn


class Ema:
    """Hold an exponential moving average of a module's weights.

    The decay warms up as (1 + n) / (10 + n), so that early averages forget the random start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {k: v.detach().clone().float() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the module's weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in module.state_dict().items():
            self.weights[name].lerp_(value.float(), 1 - decay)

    def copy_to(self, module: nn.Module) -> None:
        """Load the average into a module of the same shape."""
        module.load_state_dict(self.weights)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"updates": self.updates, "weights": self.weights}

    def load(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint's state."""
        self.updates, self.weights = state["updates"], state["weights"]


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that a reader sees the old one or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Return a checkpoint's state, or None when there is none."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
