from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReferenceLayers(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REFERENCE_LAYERS_UNSPECIFIED: _ClassVar[ReferenceLayers]
    REFERENCE_LAYERS_ALL: _ClassVar[ReferenceLayers]
    REFERENCE_LAYERS_STYLE: _ClassVar[ReferenceLayers]
    REFERENCE_LAYERS_LAYOUT: _ClassVar[ReferenceLayers]
    REFERENCE_LAYERS_STYLE_AND_LAYOUT: _ClassVar[ReferenceLayers]

class Sampler(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SAMPLER_UNSPECIFIED: _ClassVar[Sampler]
    SAMPLER_DDIM: _ClassVar[Sampler]
    SAMPLER_EULER: _ClassVar[Sampler]
    SAMPLER_EULER_ANCESTRAL: _ClassVar[Sampler]
    SAMPLER_DPMPP_2M: _ClassVar[Sampler]
    SAMPLER_DPMPP_2M_KARRAS: _ClassVar[Sampler]
    SAMPLER_UNIPC: _ClassVar[Sampler]
    SAMPLER_LCM: _ClassVar[Sampler]

class ImageFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMAGE_FORMAT_UNSPECIFIED: _ClassVar[ImageFormat]
    IMAGE_FORMAT_PNG: _ClassVar[ImageFormat]
    IMAGE_FORMAT_JPEG: _ClassVar[ImageFormat]
    IMAGE_FORMAT_WEBP: _ClassVar[ImageFormat]

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_INTERACTIVE: _ClassVar[Priority]
    PRIORITY_BATCH: _ClassVar[Priority]

class CacheOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CACHE_OUTCOME_UNSPECIFIED: _ClassVar[CacheOutcome]
    CACHE_OUTCOME_HIT: _ClassVar[CacheOutcome]
    CACHE_OUTCOME_MISS: _ClassVar[CacheOutcome]
    CACHE_OUTCOME_COALESCED: _ClassVar[CacheOutcome]

class WarningCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WARNING_CODE_UNSPECIFIED: _ClassVar[WarningCode]
    WARNING_CODE_PROMPT_TRUNCATED: _ClassVar[WarningCode]
    WARNING_CODE_REFERENCE_SMALL: _ClassVar[WarningCode]
    WARNING_CODE_REFERENCE_BLURRED: _ClassVar[WarningCode]
    WARNING_CODE_REFERENCE_LOW_CONTRAST: _ClassVar[WarningCode]
    WARNING_CODE_REFERENCE_COMPRESSED: _ClassVar[WarningCode]
    WARNING_CODE_REFERENCE_FILTERED: _ClassVar[WarningCode]
    WARNING_CODE_REFERENCE_EXTREME_ASPECT: _ClassVar[WarningCode]
    WARNING_CODE_GUIDANCE_HIGH: _ClassVar[WarningCode]
    WARNING_CODE_NEGATIVE_PROMPT_UNUSED: _ClassVar[WarningCode]
    WARNING_CODE_REFERENCE_UNUSED: _ClassVar[WarningCode]
REFERENCE_LAYERS_UNSPECIFIED: ReferenceLayers
REFERENCE_LAYERS_ALL: ReferenceLayers
REFERENCE_LAYERS_STYLE: ReferenceLayers
REFERENCE_LAYERS_LAYOUT: ReferenceLayers
REFERENCE_LAYERS_STYLE_AND_LAYOUT: ReferenceLayers
SAMPLER_UNSPECIFIED: Sampler
SAMPLER_DDIM: Sampler
SAMPLER_EULER: Sampler
SAMPLER_EULER_ANCESTRAL: Sampler
SAMPLER_DPMPP_2M: Sampler
SAMPLER_DPMPP_2M_KARRAS: Sampler
SAMPLER_UNIPC: Sampler
SAMPLER_LCM: Sampler
IMAGE_FORMAT_UNSPECIFIED: ImageFormat
IMAGE_FORMAT_PNG: ImageFormat
IMAGE_FORMAT_JPEG: ImageFormat
IMAGE_FORMAT_WEBP: ImageFormat
PRIORITY_UNSPECIFIED: Priority
PRIORITY_INTERACTIVE: Priority
PRIORITY_BATCH: Priority
CACHE_OUTCOME_UNSPECIFIED: CacheOutcome
CACHE_OUTCOME_HIT: CacheOutcome
CACHE_OUTCOME_MISS: CacheOutcome
CACHE_OUTCOME_COALESCED: CacheOutcome
WARNING_CODE_UNSPECIFIED: WarningCode
WARNING_CODE_PROMPT_TRUNCATED: WarningCode
WARNING_CODE_REFERENCE_SMALL: WarningCode
WARNING_CODE_REFERENCE_BLURRED: WarningCode
WARNING_CODE_REFERENCE_LOW_CONTRAST: WarningCode
WARNING_CODE_REFERENCE_COMPRESSED: WarningCode
WARNING_CODE_REFERENCE_FILTERED: WarningCode
WARNING_CODE_REFERENCE_EXTREME_ASPECT: WarningCode
WARNING_CODE_GUIDANCE_HIGH: WarningCode
WARNING_CODE_NEGATIVE_PROMPT_UNUSED: WarningCode
WARNING_CODE_REFERENCE_UNUSED: WarningCode

class PortraitSpec(_message.Message):
    __slots__ = ("prompt", "negative_prompt", "reference_image", "reference_digest", "ip_adapter_scale", "guidance_scale", "guidance_rescale", "steps", "sampler", "width", "height", "image_count", "seed", "format", "quality", "priority", "deterministic", "model", "references", "reference_layers", "adapter", "guidance_start", "guidance_end")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_PROMPT_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_IMAGE_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    IP_ADAPTER_SCALE_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_SCALE_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_RESCALE_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SAMPLER_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    DETERMINISTIC_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_LAYERS_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_START_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_END_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    negative_prompt: str
    reference_image: bytes
    reference_digest: str
    ip_adapter_scale: float
    guidance_scale: float
    guidance_rescale: float
    steps: int
    sampler: Sampler
    width: int
    height: int
    image_count: int
    seed: int
    format: ImageFormat
    quality: int
    priority: Priority
    deterministic: bool
    model: str
    references: _containers.RepeatedCompositeFieldContainer[WeightedReference]
    reference_layers: ReferenceLayers
    adapter: str
    guidance_start: float
    guidance_end: float
    def __init__(self, prompt: _Optional[str] = ..., negative_prompt: _Optional[str] = ..., reference_image: _Optional[bytes] = ..., reference_digest: _Optional[str] = ..., ip_adapter_scale: _Optional[float] = ..., guidance_scale: _Optional[float] = ..., guidance_rescale: _Optional[float] = ..., steps: _Optional[int] = ..., sampler: _Optional[_Union[Sampler, str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., image_count: _Optional[int] = ..., seed: _Optional[int] = ..., format: _Optional[_Union[ImageFormat, str]] = ..., quality: _Optional[int] = ..., priority: _Optional[_Union[Priority, str]] = ..., deterministic: _Optional[bool] = ..., model: _Optional[str] = ..., references: _Optional[_Iterable[_Union[WeightedReference, _Mapping]]] = ..., reference_layers: _Optional[_Union[ReferenceLayers, str]] = ..., adapter: _Optional[str] = ..., guidance_start: _Optional[float] = ..., guidance_end: _Optional[float] = ...) -> None: ...

class WeightedReference(_message.Message):
    __slots__ = ("image", "digest", "weight", "region")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    digest: str
    weight: float
    region: Region
    def __init__(self, image: _Optional[bytes] = ..., digest: _Optional[str] = ..., weight: _Optional[float] = ..., region: _Optional[_Union[Region, _Mapping]] = ...) -> None: ...

class Region(_message.Message):
    __slots__ = ("left", "top", "right", "bottom")
    LEFT_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    BOTTOM_FIELD_NUMBER: _ClassVar[int]
    left: float
    top: float
    right: float
    bottom: float
    def __init__(self, left: _Optional[float] = ..., top: _Optional[float] = ..., right: _Optional[float] = ..., bottom: _Optional[float] = ...) -> None: ...

class PortraitImage(_message.Message):
    __slots__ = ("index", "data", "format", "width", "height", "seed")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    index: int
    data: bytes
    format: ImageFormat
    width: int
    height: int
    seed: int
    def __init__(self, index: _Optional[int] = ..., data: _Optional[bytes] = ..., format: _Optional[_Union[ImageFormat, str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., seed: _Optional[int] = ...) -> None: ...

class GenerationSummary(_message.Message):
    __slots__ = ("parameters", "reference", "timings", "warnings", "references")
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    parameters: GenerationParameters
    reference: ReferenceUse
    timings: Timings
    warnings: _containers.RepeatedCompositeFieldContainer[Warning]
    references: _containers.RepeatedCompositeFieldContainer[ReferenceUse]
    def __init__(self, parameters: _Optional[_Union[GenerationParameters, _Mapping]] = ..., reference: _Optional[_Union[ReferenceUse, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., warnings: _Optional[_Iterable[_Union[Warning, _Mapping]]] = ..., references: _Optional[_Iterable[_Union[ReferenceUse, _Mapping]]] = ...) -> None: ...

class GenerationParameters(_message.Message):
    __slots__ = ("model", "sampler", "steps", "guidance_scale", "guidance_rescale", "ip_adapter_scale", "width", "height", "seed", "deterministic", "prompt", "adapter", "reference_layers", "guidance_start", "guidance_end")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SAMPLER_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_SCALE_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_RESCALE_FIELD_NUMBER: _ClassVar[int]
    IP_ADAPTER_SCALE_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    DETERMINISTIC_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_LAYERS_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_START_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_END_FIELD_NUMBER: _ClassVar[int]
    model: str
    sampler: Sampler
    steps: int
    guidance_scale: float
    guidance_rescale: float
    ip_adapter_scale: float
    width: int
    height: int
    seed: int
    deterministic: bool
    prompt: str
    adapter: str
    reference_layers: ReferenceLayers
    guidance_start: float
    guidance_end: float
    def __init__(self, model: _Optional[str] = ..., sampler: _Optional[_Union[Sampler, str]] = ..., steps: _Optional[int] = ..., guidance_scale: _Optional[float] = ..., guidance_rescale: _Optional[float] = ..., ip_adapter_scale: _Optional[float] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., seed: _Optional[int] = ..., deterministic: _Optional[bool] = ..., prompt: _Optional[str] = ..., adapter: _Optional[str] = ..., reference_layers: _Optional[_Union[ReferenceLayers, str]] = ..., guidance_start: _Optional[float] = ..., guidance_end: _Optional[float] = ...) -> None: ...

class ReferenceUse(_message.Message):
    __slots__ = ("digest", "cache_outcome", "weight")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    CACHE_OUTCOME_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    digest: str
    cache_outcome: CacheOutcome
    weight: float
    def __init__(self, digest: _Optional[str] = ..., cache_outcome: _Optional[_Union[CacheOutcome, str]] = ..., weight: _Optional[float] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("decode_input_seconds", "reference_seconds", "queue_seconds", "encode_prompt_seconds", "denoise_seconds", "decode_latents_seconds", "encode_output_seconds", "total_seconds", "mean_batch_rows")
    DECODE_INPUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ENCODE_PROMPT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DENOISE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DECODE_LATENTS_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ENCODE_OUTPUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MEAN_BATCH_ROWS_FIELD_NUMBER: _ClassVar[int]
    decode_input_seconds: float
    reference_seconds: float
    queue_seconds: float
    encode_prompt_seconds: float
    denoise_seconds: float
    decode_latents_seconds: float
    encode_output_seconds: float
    total_seconds: float
    mean_batch_rows: float
    def __init__(self, decode_input_seconds: _Optional[float] = ..., reference_seconds: _Optional[float] = ..., queue_seconds: _Optional[float] = ..., encode_prompt_seconds: _Optional[float] = ..., denoise_seconds: _Optional[float] = ..., decode_latents_seconds: _Optional[float] = ..., encode_output_seconds: _Optional[float] = ..., total_seconds: _Optional[float] = ..., mean_batch_rows: _Optional[float] = ...) -> None: ...

class Warning(_message.Message):
    __slots__ = ("code", "field", "message", "action")
    CODE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    code: WarningCode
    field: str
    message: str
    action: str
    def __init__(self, code: _Optional[_Union[WarningCode, str]] = ..., field: _Optional[str] = ..., message: _Optional[str] = ..., action: _Optional[str] = ...) -> None: ...
