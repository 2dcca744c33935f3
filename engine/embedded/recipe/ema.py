"""Average weights over training, and write checkpoints atomically."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def trained_state(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's state without the parameters that are frozen: those belong to another stage."""
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in module.state_dict().items() if name not in frozen}


class Ema:
    """Hold an exponential moving average of a module's weights.

    The decay warms up as (1 + n) / (10 + n), so that early averages forget the random start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {k: v.detach().clone().float() for k, v in trained_state(module).items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the module's weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        state = trained_state(module)
        torch._foreach_lerp_(list(self.weights.values()), [state[k].float() for k in self.weights], 1 - decay)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"updates": self.updates, "weights": self.weights}

    def load(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint's state."""
        self.updates = state["updates"]
        for name, value in self.weights.items():
            value.copy_(state["weights"][name])


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
