"""One graph of an export on the disk, checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engine.export.digest import digest_file
from engine.export.errors import GraphError
from engine.export.manifest import GraphEntry, TensorSpec
from engine.export.trace import GraphSource, trace_graph
from engine.export.weights import attach_weights, borrow_weights

if TYPE_CHECKING:
    import onnx


def write_graph(source: GraphSource, folder: Path, *, opset: int) -> GraphEntry:
    """Trace a graph, write it to ``<name>.onnx`` with its weights in ``<name>.onnx.data``, and check it.

    One with ``weights_of`` reads those of that graph, which lies in the same folder.

    Raises ``GraphError`` and ``OSError``.
    """
    import onnx

    path = folder / f"{source.name}.onnx"
    lender = path if source.weights_of is None else folder / f"{source.weights_of}.onnx"
    data = lender.with_name(f"{lender.name}.data")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        model = trace_graph(source, opset=opset)
    except Exception as error:  # the tracer runs the libraries' code and raises whatever that raises
        raise GraphError("the graph cannot be traced", path=path, found=repr(error)[:500]) from error
    if source.weights_of is None:
        large = attach_weights(model, source.module, path, data)
    else:
        large = borrow_weights(model, source.module, path, lender)
    model = _inferred(model, path)
    path.write_bytes(model.SerializeToString(deterministic=True))
    try:
        # By path: so the checker follows the weights outside.
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GraphError(
            "the graph does not pass the ONNX checker", path=path, found=str(error)[:500]
        ) from error
    return GraphEntry(
        onnx=digest_file(folder, path),
        data=digest_file(folder, data) if large else None,
        inputs=tuple(_spec(value) for value in model.graph.input),
        outputs=tuple(_spec(value) for value in model.graph.output),
    )


def _inferred(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Infer the shapes between inputs and outputs, weights outside the graph left where they are."""
    import onnx

    try:
        return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise GraphError("shapes do not fit", path=path, found=str(error)[:500]) from error


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    import onnx

    tensor = value.type.tensor_type
    return TensorSpec(
        name=value.name,
        dtype=onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name,
        shape=tuple(size.dim_param or size.dim_value for size in tensor.shape.dim),
    )
