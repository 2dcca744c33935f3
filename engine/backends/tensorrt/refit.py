"""New weights for an engine of the same graph, without another build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.backends.tensorrt.errors import EngineRefusedError
from engine.backends.tensorrt.package import TensorRTPackage


def refit_engine(package: TensorRTPackage, engine: Any, onnx: Path, logger: Any) -> Any:
    """Give a loaded, refittable engine the weights of an ONNX file; return the engine serialised with them.

    Raises ``EngineRefusedError`` if the engine was not built for it or some of its weights are not in the file.
    """
    if not engine.refittable:
        raise EngineRefusedError("engine was built without REFIT", path=onnx)
    refitter = package.module.Refitter(engine, logger)
    parser = package.module.OnnxParserRefitter(refitter, logger)
    if not parser.refit_from_file(str(onnx)):
        reasons = "; ".join(str(parser.get_error(index).desc()) for index in range(parser.num_errors))
        raise EngineRefusedError("weights do not fit the engine", path=onnx, found=reasons or None)
    missing = refitter.get_missing_weights()
    if missing:
        raise EngineRefusedError(
            "weights are missing", path=onnx, tensor=missing[0], found=f"{len(missing)} missing"
        )
    if not refitter.refit_cuda_engine():
        raise EngineRefusedError(
            "TensorRT does not take the weights", path=onnx, found="; ".join(logger.errors) or None
        )
    return engine.serialize()
