from google.api import annotations_pb2 as _annotations_pb2
from limner.v1 import portrait_pb2 as _portrait_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "family", "adapters", "default_width", "default_height", "size_multiple", "min_size", "max_size", "prompt_tokens", "samplers", "default_steps", "default_guidance_scale", "weights_hash", "buckets", "reference_layers", "reference_regions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_WIDTH_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    SIZE_MULTIPLE_FIELD_NUMBER: _ClassVar[int]
    MIN_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_SIZE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SAMPLERS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_STEPS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_GUIDANCE_SCALE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_HASH_FIELD_NUMBER: _ClassVar[int]
    BUCKETS_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_LAYERS_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_REGIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    family: str
    adapters: _containers.RepeatedScalarFieldContainer[str]
    default_width: int
    default_height: int
    size_multiple: int
    min_size: int
    max_size: int
    prompt_tokens: int
    samplers: _containers.RepeatedCompositeFieldContainer[SamplerLimits]
    default_steps: int
    default_guidance_scale: float
    weights_hash: str
    buckets: _containers.RepeatedScalarFieldContainer[int]
    reference_layers: _containers.RepeatedScalarFieldContainer[_portrait_pb2.ReferenceLayers]
    reference_regions: bool
    def __init__(self, name: _Optional[str] = ..., family: _Optional[str] = ..., adapters: _Optional[_Iterable[str]] = ..., default_width: _Optional[int] = ..., default_height: _Optional[int] = ..., size_multiple: _Optional[int] = ..., min_size: _Optional[int] = ..., max_size: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., samplers: _Optional[_Iterable[_Union[SamplerLimits, _Mapping]]] = ..., default_steps: _Optional[int] = ..., default_guidance_scale: _Optional[float] = ..., weights_hash: _Optional[str] = ..., buckets: _Optional[_Iterable[int]] = ..., reference_layers: _Optional[_Iterable[_Union[_portrait_pb2.ReferenceLayers, str]]] = ..., reference_regions: _Optional[bool] = ...) -> None: ...

class SamplerLimits(_message.Message):
    __slots__ = ("sampler", "min_steps", "max_steps")
    SAMPLER_FIELD_NUMBER: _ClassVar[int]
    MIN_STEPS_FIELD_NUMBER: _ClassVar[int]
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    sampler: _portrait_pb2.Sampler
    min_steps: int
    max_steps: int
    def __init__(self, sampler: _Optional[_Union[_portrait_pb2.Sampler, str]] = ..., min_steps: _Optional[int] = ..., max_steps: _Optional[int] = ...) -> None: ...

class GetLimitsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetLimitsResponse(_message.Message):
    __slots__ = ("limits",)
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    limits: Limits
    def __init__(self, limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_image_bytes", "max_image_pixels", "min_image_side", "max_prompt_characters", "max_steps", "max_images", "max_guidance_scale", "max_ip_adapter_scale", "max_requests_in_flight", "max_references", "max_reference_weight")
    MAX_IMAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MIN_IMAGE_SIDE_FIELD_NUMBER: _ClassVar[int]
    MAX_PROMPT_CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGES_FIELD_NUMBER: _ClassVar[int]
    MAX_GUIDANCE_SCALE_FIELD_NUMBER: _ClassVar[int]
    MAX_IP_ADAPTER_SCALE_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUESTS_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_REFERENCES_FIELD_NUMBER: _ClassVar[int]
    MAX_REFERENCE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    max_image_bytes: int
    max_image_pixels: int
    min_image_side: int
    max_prompt_characters: int
    max_steps: int
    max_images: int
    max_guidance_scale: float
    max_ip_adapter_scale: float
    max_requests_in_flight: int
    max_references: int
    max_reference_weight: float
    def __init__(self, max_image_bytes: _Optional[int] = ..., max_image_pixels: _Optional[int] = ..., min_image_side: _Optional[int] = ..., max_prompt_characters: _Optional[int] = ..., max_steps: _Optional[int] = ..., max_images: _Optional[int] = ..., max_guidance_scale: _Optional[float] = ..., max_ip_adapter_scale: _Optional[float] = ..., max_requests_in_flight: _Optional[int] = ..., max_references: _Optional[int] = ..., max_reference_weight: _Optional[float] = ...) -> None: ...
