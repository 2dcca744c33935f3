import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from limner.v1 import portrait_pb2 as _portrait_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class UploadReferenceRequest(_message.Message):
    __slots__ = ("image", "adapter", "model")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    adapter: str
    model: str
    def __init__(self, image: _Optional[bytes] = ..., adapter: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class UploadReferenceResponse(_message.Message):
    __slots__ = ("reference", "cache_outcome")
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    CACHE_OUTCOME_FIELD_NUMBER: _ClassVar[int]
    reference: Reference
    cache_outcome: _portrait_pb2.CacheOutcome
    def __init__(self, reference: _Optional[_Union[Reference, _Mapping]] = ..., cache_outcome: _Optional[_Union[_portrait_pb2.CacheOutcome, str]] = ...) -> None: ...

class GetReferenceRequest(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class GetReferenceResponse(_message.Message):
    __slots__ = ("reference",)
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    reference: Reference
    def __init__(self, reference: _Optional[_Union[Reference, _Mapping]] = ...) -> None: ...

class DeleteReferenceRequest(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class DeleteReferenceResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Reference(_message.Message):
    __slots__ = ("digest", "width", "height", "size_bytes", "format", "warnings", "create_time")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    digest: str
    width: int
    height: int
    size_bytes: int
    format: _portrait_pb2.ImageFormat
    warnings: _containers.RepeatedCompositeFieldContainer[_portrait_pb2.Warning]
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, digest: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., size_bytes: _Optional[int] = ..., format: _Optional[_Union[_portrait_pb2.ImageFormat, str]] = ..., warnings: _Optional[_Iterable[_Union[_portrait_pb2.Warning, _Mapping]]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
