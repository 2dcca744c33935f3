"""Our proto of the Open Inference Protocol is, on the wire, what stock clients speak."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from limner.kserve import open_inference_grpc_pb2

TRITON = """
import sys
from tritonclient.grpc import service_pb2
sys.stdout.buffer.write(service_pb2.DESCRIPTOR.serialized_pb)
"""
NOT_TRITONS = {"ModelMetadataResponse.properties", "ModelMetadataResponse.PropertiesEntry"}
"""In the specification, and not in Triton."""


def fields(messages: Any, prefix: str = "") -> Iterator[tuple[str, tuple[Any, ...]]]:
    for message in messages:
        path = f"{prefix}{message.name}"
        for field in message.field:
            yield f"{path}.{field.name}", (field.number, field.type, field.label, field.type_name)
        yield from fields(message.nested_type, f"{path}.")


def test_every_field_has_the_number_and_type_that_tritons_client_knows():
    # In a process of its own: one process takes one description of the package.
    written = subprocess.run([sys.executable, "-c", TRITON], capture_output=True, check=True).stdout
    theirs = FileDescriptorProto.FromString(written)
    ours = FileDescriptorProto.FromString(open_inference_grpc_pb2.DESCRIPTOR.serialized_pb)
    assert ours.package == theirs.package == "inference"
    known = dict(fields(theirs.message_type))
    mine = {name: told for name, told in fields(ours.message_type) if not name.startswith(tuple(NOT_TRITONS))}
    assert len(mine) > 50
    assert {name: known.get(name) for name in mine} == mine
    methods = {method.name: method for method in theirs.service[0].method}
    assert ours.service[0].name == theirs.service[0].name
    for method in ours.service[0].method:
        their = methods[method.name]
        assert (method.input_type, method.output_type) == (their.input_type, their.output_type)
        assert not (their.client_streaming or their.server_streaming)
