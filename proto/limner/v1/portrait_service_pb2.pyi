from google.api import annotations_pb2 as _annotations_pb2
from limner.v1 import portrait_pb2 as _portrait_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GenerateRequest(_message.Message):
    __slots__ = ("portrait", "idempotency_key")
    PORTRAIT_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    portrait: _portrait_pb2.PortraitSpec
    idempotency_key: str
    def __init__(self, portrait: _Optional[_Union[_portrait_pb2.PortraitSpec, _Mapping]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("task_id", "images", "summary")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    images: _containers.RepeatedCompositeFieldContainer[_portrait_pb2.PortraitImage]
    summary: _portrait_pb2.GenerationSummary
    def __init__(self, task_id: _Optional[str] = ..., images: _Optional[_Iterable[_Union[_portrait_pb2.PortraitImage, _Mapping]]] = ..., summary: _Optional[_Union[_portrait_pb2.GenerationSummary, _Mapping]] = ...) -> None: ...

class GenerateStreamRequest(_message.Message):
    __slots__ = ("portrait", "idempotency_key", "preview_interval")
    PORTRAIT_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    portrait: _portrait_pb2.PortraitSpec
    idempotency_key: str
    preview_interval: int
    def __init__(self, portrait: _Optional[_Union[_portrait_pb2.PortraitSpec, _Mapping]] = ..., idempotency_key: _Optional[str] = ..., preview_interval: _Optional[int] = ...) -> None: ...

class GenerateStreamResponse(_message.Message):
    __slots__ = ("task_id", "queued", "progress", "preview", "image", "completed")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    queued: Queued
    progress: Progress
    preview: Preview
    image: _portrait_pb2.PortraitImage
    completed: _portrait_pb2.GenerationSummary
    def __init__(self, task_id: _Optional[str] = ..., queued: _Optional[_Union[Queued, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., preview: _Optional[_Union[Preview, _Mapping]] = ..., image: _Optional[_Union[_portrait_pb2.PortraitImage, _Mapping]] = ..., completed: _Optional[_Union[_portrait_pb2.GenerationSummary, _Mapping]] = ...) -> None: ...

class Queued(_message.Message):
    __slots__ = ("position", "starts_in_seconds", "finishes_in_seconds")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    STARTS_IN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FINISHES_IN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    position: int
    starts_in_seconds: float
    finishes_in_seconds: float
    def __init__(self, position: _Optional[int] = ..., starts_in_seconds: _Optional[float] = ..., finishes_in_seconds: _Optional[float] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("step", "steps")
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    step: int
    steps: int
    def __init__(self, step: _Optional[int] = ..., steps: _Optional[int] = ...) -> None: ...

class Preview(_message.Message):
    __slots__ = ("index", "step", "data", "format")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    index: int
    step: int
    data: bytes
    format: _portrait_pb2.ImageFormat
    def __init__(self, index: _Optional[int] = ..., step: _Optional[int] = ..., data: _Optional[bytes] = ..., format: _Optional[_Union[_portrait_pb2.ImageFormat, str]] = ...) -> None: ...
