"""What every rewrite of an OpenVINO graph needs: to see what reads what, and to put something else in its place."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from engine.backends.compiled.openvino_core import shared_core

_KEPT = "DisablePrecisionConversion"
_KEY = f"{_KEPT}_0"
_EXAMPLE = f"""<net name="kept" version="11">
<layers>
<layer id="0" name="x" type="Parameter" version="opset1">
<data shape="1" element_type="f32"/>
<output><port id="0" precision="FP32"><dim>1</dim></port></output>
</layer>
<layer id="1" name="{_KEPT}" type="ReLU" version="opset1">
<rt_info><attribute name="{_KEPT}" version="0" value="dynamic:f16"/></rt_info>
<input><port id="0" precision="FP32"><dim>1</dim></port></input>
<output><port id="1" precision="FP32"><dim>1</dim></port></output>
</layer>
<layer id="2" name="y" type="Result" version="opset1">
<input><port id="0" precision="FP32"><dim>1</dim></port></input>
</layer>
</layers>
<edges>
<edge from-layer="0" from-port="0" to-layer="1" to-port="0"/>
<edge from-layer="1" from-port="1" to-layer="2" to-port="0"/>
</edges>
</net>"""


def keep_in_float32(results: Iterable[Any], *, after: Iterable[Any]) -> None:
    """Have results, and all on the way to them from ``after``, computed in float32 whatever precision is asked for.

    OpenVINO's CPU plugin honours the mark with which its own passes keep positions and norms exact. Python cannot make
    one, but reads it from a graph. Source: ``disable_precision_conversion.hpp`` and the CPU plugin's ``Node::Node``,
    OpenVINO 2026.4. Only where ``keeps_float32``.
    """
    mark = _mark()
    seen = {op.get_name() for op in after}
    ahead = list(results)
    while ahead:
        op = ahead.pop()
        if op.get_name() not in seen and op.get_type_name() != "Constant":
            seen.add(op.get_name())
            op.set_rt_info(mark, _KEY)
            ahead += [value.get_node() for value in op.input_values()]


def keeps_float32() -> bool:
    """Whether this OpenVINO knows the mark of ``keep_in_float32``."""
    return _mark() is not None


@cache
def _mark() -> Any:
    example = shared_core().read_model(_EXAMPLE.encode(), b"")
    infos = [op.get_rt_info() for op in example.get_ops()]
    return next((info[_KEY] for info in infos if _KEY in info.keys()), None)  # noqa: SIM118


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
