"""What every rewrite of an OpenVINO graph needs: to see what reads what, and to put something else in its place."""

from __future__ import annotations

from typing import Any


def static(model: Any) -> bool:
    """Whether every dimension of every input is known."""
    return all(port.partial_shape.is_static for port in model.inputs)


def fold(model: Any) -> None:
    """Compute what is constant once shapes are known: where a layer's columns begin, and where a slice ends."""
    from openvino.passes import ConstantFolding, Manager

    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)


def only_reader(node: Any) -> Any:
    """Return what reads a node's first output; None where nothing or more does."""
    readers = node.output(0).get_target_inputs()
    return next(iter(readers)).get_node() if len(readers) == 1 else None


def replace(output: Any, by: Any) -> None:
    """Let whatever reads an output read another one."""
    for reader in output.get_target_inputs():
        reader.replace_source_output(by)
