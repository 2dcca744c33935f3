"""A graph that OpenVINO compiled, ready to be called: its lanes, and the conditioning that stays in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from engine.backends.compiled.by_layer import ConditioningByLayer, LayerInput
from engine.backends.compiled.mapped import Mapped
from engine.backends.compiled.runtime import Rows, Tensors

CONDITIONING = ("kv_text", "kv_ip")
"""Inputs of the UNet that it reads layer by layer."""
_LAYER_INPUTS = tuple(f"{name}/" for name in CONDITIONING)


class OpenVINOGraph:
    """A compiled graph as ``CompiledGraph``: its rows shared out evenly among lanes that run at the same time.

    A lane is a request of its own on a stream of its own. ``file`` is what the graph was read from: OpenVINO reads its
    weights there whenever a stream runs for the first time, so it stays mapped for the graph's life.
    """

    def __init__(
        self,
        compiled: Any,
        outputs: Sequence[str],
        *,
        lanes: int = 1,
        file: Mapped | None = None,
    ) -> None:
        self._outputs = outputs
        self._lanes = [Lane(compiled) for _ in range(lanes)]
        self._file = file
        self._ran = False

    def __call__(self, inputs: Tensors, rows: Rows | None = None) -> dict[str, torch.Tensor]:
        """Run; see ``CompiledGraph``."""
        lanes = self._lanes
        if len(lanes) == 1:
            lanes[0].give(inputs, rows)
            lanes[0].request.infer()
        else:
            share = len(next(iter(inputs.values()))) // len(lanes)
            for number, lane in enumerate(lanes):
                part = slice(number * share, (number + 1) * share)
                lane.give(
                    {name: tensor[part] for name, tensor in inputs.items()},
                    None if rows is None else rows[part],
                )
                lane.request.start_async()
            _wait(lanes)
        if not self._ran and self._file is not None:
            # The weights are packed by now, and little of the file is read again.
            self._file.release()
        self._ran = True
        return {
            name: torch.from_numpy(np.concatenate([lane.request.get_tensor(name).data for lane in lanes]))
            for name in self._outputs
        }


class Lane:
    """One request of a compiled graph and what lies in its inputs."""

    def __init__(self, compiled: Any) -> None:
        self.request = compiled.create_infer_request()
        layers: list[LayerInput] = []
        for port in compiled.inputs:
            if (found := layer_input(port)) is not None:
                self.request.set_tensor(port, found[0])
                layers.append(found[1])
        self._conditioning = ConditioningByLayer(layers)
        self._given: dict[str, Any] = {}

    def give(self, inputs: Tensors, rows: Rows | None) -> None:
        """Set the inputs of the next run: conditioning where it is new, all else shared, not copied."""
        import openvino

        held = self._conditioning.packed
        if held:
            self._conditioning.hold(inputs, rows or [object() for _ in inputs[CONDITIONING[0]]])
        # OpenVINO does not keep shared memory alive; this does, until the next run.
        self._given = {
            name: tensor.contiguous().numpy() for name, tensor in inputs.items() if name not in held
        }
        for name, array in self._given.items():
            self.request.set_tensor(name, openvino.Tensor(array, shared_memory=True))


def layer_input(port: Any) -> tuple[Any, LayerInput] | None:
    """Return memory for an input by layer, as OpenVINO's tensor and as ours: zeros, so that padding is finite.

    None for all other inputs.
    """
    import openvino

    name = next((name for name in port.names if name.startswith(_LAYER_INPUTS)), None)
    if name is None:
        return None
    tensor = openvino.Tensor(port.element_type, port.shape)
    bits = torch.from_numpy(tensor.data.view(f"int{8 * port.element_type.size}"))
    bits.zero_()
    kind = {"bf16": torch.bfloat16, "f32": torch.float32}[port.element_type.to_string()]
    return tensor, LayerInput.of(name, bits.view(kind))


def _wait(lanes: Sequence[Lane]) -> None:
    """Wait for all lanes, whatever becomes of one: none may run on while its inputs change."""
    errors: list[Exception] = []
    for lane in lanes:
        try:
            lane.request.wait()
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]
