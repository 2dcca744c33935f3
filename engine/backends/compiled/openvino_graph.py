"""A graph that OpenVINO compiled, ready to be called: its lanes, and the conditioning that stays in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from engine.backends.compiled.by_layer import ConditioningByLayer, LayerInput, layer_input
from engine.backends.compiled.mapped import Mapped
from engine.backends.compiled.runtime import Rows, Tensors

CONDITIONING = ("kv_text", "kv_ip")
"""Inputs of the UNet that it reads layer by layer."""

_TYPES: dict[str, torch.dtype] = {
    "bf16": torch.bfloat16,
    "f16": torch.float16,
    "f32": torch.float32,
    "i32": torch.int32,
    "i64": torch.int64,
}


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

    def __call__(self, inputs: Tensors, rows: Rows | None = None) -> dict[str, torch.Tensor]:
        """Run; see ``CompiledGraph``."""
        lanes = self._lanes
        share = len(next(iter(inputs.values()))) // len(lanes)
        for number, lane in enumerate(lanes):
            part = slice(number * share, (number + 1) * share)
            own = inputs if len(lanes) == 1 else {name: tensor[part] for name, tensor in inputs.items()}
            lane.give(own, None if rows is None else rows[part])
        if len(lanes) == 1:
            lanes[0].request.infer()
        else:
            _run_together([lane.request for lane in lanes])
        if self._file is not None:
            # The weights are packed by now, and little of the file is read again.
            self._file.release()
        # Copies: the next run overwrites what is there.
        return {name: torch.cat([lane.result(name) for lane in lanes]) for name in self._outputs}


class Lane:
    """One request of a compiled graph, and the memory of all its inputs whose shapes are known.

    That memory stays where it is: what a run is given is copied there, which takes less time than telling OpenVINO
    where else it lies.
    """

    def __init__(self, compiled: Any) -> None:
        import openvino

        self._tensor = openvino.Tensor
        self.request = compiled.create_infer_request()
        layers: list[LayerInput] = []
        self._memory: dict[str, torch.Tensor] = {}
        self._moving: set[str] = set()
        for port in compiled.inputs:
            if (name := layer_name(port)) is not None:
                layers.append(layer_input(name, self._own(port)))
            elif port.partial_shape.is_static and port.element_type.to_string() in _TYPES:
                self._memory |= dict.fromkeys(port.names, self._own(port))
            else:
                self._moving |= port.names
        self._conditioning = ConditioningByLayer(layers) if layers else None
        self._given: dict[str, Any] = {}

    def give(self, inputs: Tensors, rows: Rows | None) -> None:
        """Set the inputs of the next run: conditioning where it is new."""
        if self._conditioning is not None:
            count = len(inputs[CONDITIONING[0]])
            self._conditioning.hold(inputs, [object() for _ in range(count)] if rows is None else rows)
        for name, tensor in inputs.items():
            if name in self._memory:
                assert tensor.shape == self._memory[name].shape, f"{name} is {list(tensor.shape)}"
                self._memory[name].copy_(tensor)
        # OpenVINO does not keep shared memory alive; this does, until the next run.
        self._given = {
            name: tensor.contiguous().numpy() for name, tensor in inputs.items() if name in self._moving
        }
        for name, array in self._given.items():
            self.request.set_tensor(name, self._tensor(array, shared_memory=True))

    def result(self, name: str) -> torch.Tensor:
        """Return an output of the last run, which the next one overwrites."""
        return torch.from_numpy(self.request.get_tensor(name).data)

    def _own(self, port: Any) -> torch.Tensor:
        tensor, memory = zeros(port)
        self.request.set_tensor(port, tensor)
        return memory


def layer_name(port: Any) -> str | None:
    """Return the name of an input by layer; None for all other inputs."""
    return next((name for name in port.names if name.startswith(CONDITIONING) and "/" in name), None)


def zeros(port: Any) -> tuple[Any, torch.Tensor]:
    """Return memory for a port, as OpenVINO's tensor and as ours: zeros, so that padding is finite."""
    import openvino

    tensor = openvino.Tensor(port.element_type, port.shape)
    # Whoever makes it may be in inference mode, and whoever writes to it later may not.
    with torch.inference_mode(mode=False):
        bits = torch.from_numpy(tensor.data.view(f"int{8 * port.element_type.size}"))
        bits.zero_()
        return tensor, bits.view(_TYPES[port.element_type.to_string()])


def _run_together(requests: Sequence[Any]) -> None:
    """Run all requests at the same time.

    Waits for every one that was started, whatever becomes of another: none may run on while its inputs change. Raises
    the first error.
    """
    errors: list[Exception] = []
    started: list[Any] = []
    for request in requests:
        try:
            request.start_async()
        except Exception as error:
            errors.append(error)
            break
        started.append(request)
    for request in started:
        try:
            request.wait()
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]
