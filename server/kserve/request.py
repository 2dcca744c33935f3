"""From an inference request to the native API's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from limner.kserve.open_inference_grpc_pb2 import InferParameter, ModelInferRequest
from limner.v1.portrait_pb2 import PortraitSpec
from limner.v1.portrait_service_pb2 import GenerateRequest

from server.api.checks import Findings
from server.kserve.metadata import OUTPUTS
from server.kserve.settings import SETTINGS, Setting
from server.kserve.tensors import BYTES, InputTensor, input_field, read_inputs

IMAGE, DIGEST, WEIGHT = "reference_image", "reference_digest", "reference_weight"
IDEMPOTENCY_KEY = Setting(name="idempotency_key", datatype=BYTES, bits=0, choices=(), prefix="")
NAMES = (*SETTINGS, IDEMPOTENCY_KEY.name, IMAGE, DIGEST, WEIGHT)
"""What inputs and parameters may be called; a request with more of them than this has wrong ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """What an inference asks for: a native request, and the names of the outputs that are wanted."""

    generate: GenerateRequest
    outputs: tuple[str, ...]


def inference(request: ModelInferRequest, *, model: str) -> Inference:
    """Read a request for a model. Raises ``InvalidFieldsError`` with everything that is no native request at all."""
    findings = Findings()
    for field, given, most in (
        ("inputs", request.inputs, len(NAMES)),
        ("parameters", request.parameters, len(NAMES)),
        ("outputs", request.outputs, len(OUTPUTS)),
    ):
        if len(given) > most:
            findings.add(field, f"has {len(given)} elements", f"the limit is {most}")
    findings.raise_any()
    tensors = read_inputs(findings, request)
    asked = GenerateRequest(portrait=PortraitSpec(model=model))
    for name, tensor in tensors.items():
        if name not in (IMAGE, DIGEST, WEIGHT):
            _assign(findings, input_field(name), asked, name, _single(findings, name, tensor))
    for name, parameter in request.parameters.items():
        field = f"parameters[{name[:64]}]"
        if name in tensors:
            findings.add(field, "is set together with an input of its name", "the limit is one of the two")
        elif name == DIGEST:
            digest = parameter.string_param.encode()
            tensors[name] = InputTensor(datatype=BYTES, values=(digest,))
        else:
            _assign(findings, field, asked, name, _value(parameter))
    _references(findings, asked.portrait, tensors)
    outputs = _outputs(findings, request)
    findings.raise_any()
    return Inference(generate=asked, outputs=outputs)


def _assign(findings: Findings, field: str, asked: GenerateRequest, name: str, value: Any) -> None:
    if name == IDEMPOTENCY_KEY.name:
        IDEMPOTENCY_KEY.assign(findings, field, asked, value)
    elif name in SETTINGS:
        SETTINGS[name].assign(findings, field, asked.portrait, value)
    else:
        findings.add(field, "has no meaning here", f"the limit is one of {', '.join(NAMES)}")


def _single(findings: Findings, name: str, tensor: InputTensor) -> Any:
    if len(tensor.values) > 1:
        findings.add(
            input_field(name),
            f"has {len(tensor.values)} elements",
            "the limit is 1: a request is one portrait",
        )
    return tensor.values[0]


def _value(parameter: InferParameter) -> Any:
    chosen = parameter.WhichOneof("parameter_choice")
    return None if chosen is None else getattr(parameter, chosen)


def _references(findings: Findings, spec: PortraitSpec, tensors: dict[str, InputTensor]) -> None:
    """Name one plain reference as the native API does, and several or a weighted one in its list."""
    given = [name for name in (IMAGE, DIGEST) if name in tensors]
    weights = tensors.get(WEIGHT)
    for name in given:
        if tensors[name].datatype != BYTES:
            findings.add(input_field(name), f"is {tensors[name].datatype}", f"the limit is {BYTES}")
            return
    if len(given) > 1:
        findings.add(input_field(DIGEST), f"is set together with {IMAGE}", "the limit is one of the two")
        return
    values = tensors[given[0]].values if given else ()
    if weights is not None and not _fits(findings, weights, len(values)):
        return
    texts = [value.decode("ascii", "replace") for value in values] if given == [DIGEST] else []
    if len(values) == 1 and weights is None:
        if texts:
            spec.reference_digest = texts[0]
        else:
            spec.reference_image = values[0]
        return
    for index, value in enumerate(values):
        reference = spec.references.add()
        if texts:
            reference.digest = texts[index]
        else:
            reference.image = value
        if weights is not None:
            reference.weight = weights.values[index]


def _fits(findings: Findings, weights: InputTensor, count: int) -> bool:
    field = input_field(WEIGHT)
    if not all(isinstance(value, float) for value in weights.values):
        findings.add(field, f"is {weights.datatype}", "the limit is FP32 or another float")
    elif len(weights.values) != count:
        findings.add(
            field, f"has {len(weights.values)} elements", f"the limit is {count}, as many as references"
        )
    else:
        return True
    return False


def _outputs(findings: Findings, request: ModelInferRequest) -> tuple[str, ...]:
    wanted: list[str] = []
    for output in request.outputs:
        field = f"outputs[{output.name[:64]}]"
        if output.name not in OUTPUTS:
            findings.add(field, "is no output of this model", f"the limit is one of {', '.join(OUTPUTS)}")
        elif output.name in wanted:
            findings.add(field, "is there more than once", "the limit is once")
        elif output.parameters:
            findings.add(field, "has parameters", "the limit is none; shared memory is not served")
        else:
            wanted.append(output.name)
    return tuple(wanted) or tuple(OUTPUTS)
