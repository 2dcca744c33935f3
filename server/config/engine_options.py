"""What may be chosen about the engines."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from server.config.units import MIB


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The engine processes: one a device, for each model."""

    model: Annotated[
        str,
        Meta(
            description="Directory of the default model, in diffusers' layout or exported (docs/backends.md). Empty "
            "for the one in the package. `name=path`, or `name=`, serves it under a name of your choice."
        ),
    ] = ""
    models: Annotated[
        tuple[str, ...],
        Meta(
            description="Further models that requests can name, each a path or `name=path`; without a name it is the "
            "directory's. Each has engine processes of its own with all options of this section but `adapter` and "
            "`loras`, which are the default model's alone (docs/models.md)."
        ),
    ] = ()
    adapter: Annotated[
        str,
        Meta(
            description="Default IP-Adapter, by its file's stem, where the model has several. Empty for the only one, "
            "or the one that the model's `limner.json` names."
        ),
    ] = ""
    loras: Annotated[
        tuple[str, ...],
        Meta(
            description="LoRAs to fuse into the model's weights, each a path or `path:scale`, beside those in its "
            "`lora/`."
        ),
    ] = ()
    backend: Annotated[
        str,
        Meta(
            description="What computes: `openvino`, `onnxruntime`, `torch`, `tensorrt` or `tensorrt-rtx`. Empty leaves "
            "it to the engine: `openvino` on a CPU, `torch` on a GPU. docs/backends.md says how to choose."
        ),
    ] = ""
    cache_dir: Annotated[
        str,
        Meta(
            description="Folder for exported and compiled models, which the first start fills. Empty for `limner` in "
            "the user's cache directory (`XDG_CACHE_HOME`, or `~/.cache`)."
        ),
    ] = ""
    device: Annotated[
        str, Meta(description="Device to compute on, as torch names it, such as `cpu` or `cuda:0`.")
    ] = "cpu"
    devices: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        Meta(
            description="In place of `device`, several: each model has an engine on each, so `cpu,cpu` is two on the "
            "CPU. Requests go to the one that has the least to do (docs/backends.md)."
        ),
    ] = ()
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16", "int8"],
        Meta(
            description="Type to compute in. `auto` is bfloat16 with `openvino` on a CPU that has instructions for it, "
            "and float32 otherwise. `int8` is for `openvino` and a calibrated model (docs/backends.md)."
        ),
    ] = "auto"
    threads: Annotated[
        int,
        Meta(
            ge=0,
            le=1024,
            description="CPU threads of an engine's backend; 0 leaves their number to it, or shares the cores out "
            "among a model's engines on the CPU.",
        ),
    ] = 0
    lanes: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="Parts of a tick's rows that run at the same time, each on its share of the threads, as many "
            "as divide a bucket evenly; openvino alone. A lane for each thread makes a small model faster and takes "
            "more memory: backends.md.",
        ),
    ] = 1
    buckets: Annotated[
        tuple[Annotated[int, Meta(ge=1)], ...],
        Meta(description="Batch sizes, in rows, that ticks run in. Empty for all that the backend has."),
    ] = ()
    deterministic_bucket: Annotated[
        int,
        Meta(
            ge=0,
            le=1024,
            description="The one bucket of ticks that hold a deterministic image, a power of two; 0 chooses.",
        ),
    ] = 0
    prompt_cache_bytes: Annotated[
        int, Meta(ge=0, description="Memory for prompt embeddings in the engine; 0 keeps none.")
    ] = 64 * MIB
    headroom: Annotated[
        float,
        Meta(ge=1, le=100, description="Factor on predicted times before they are held against a deadline."),
    ] = 1.1
    aging_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="A batch image gives way to interactive ones that come within so long after it, and until then "
            "takes what room their ticks have.",
        ),
    ] = 30.0
    max_images_waiting: Annotated[
        int,
        Meta(
            ge=1,
            description="Images that may wait in the engine for their first tick; more are refused with OVERLOADED.",
        ),
    ] = 1024
    start_timeout_seconds: Annotated[
        float, Meta(gt=0, description="Longest wait for an engine to load and warm up before it is killed.")
    ] = 900.0
    stall_timeout_seconds: Annotated[
        float,
        Meta(
            ge=0,
            description="A ready engine that says nothing for so long, from its first moment on, is killed and "
            "replaced; 0 never does.",
        ),
    ] = 300.0
    stop_timeout_seconds: Annotated[
        float,
        Meta(ge=0, description="Longest wait for an engine to exit when it is told to, before it is killed."),
    ] = 5.0
    restart_delay_seconds: Annotated[
        float,
        Meta(
            ge=0,
            description="Wait before a dead engine is replaced; doubles with each death that follows soon.",
        ),
    ] = 0.2
    restart_delay_max_seconds: Annotated[float, Meta(ge=0, description="Longest such wait.")] = 30.0
    patience_seconds: Annotated[
        float,
        Meta(
            gt=0,
            description="When no engine is back so long after one was lost, all work that waits fails with "
            "ENGINE_UNAVAILABLE, however short its wait, and new work at once until an engine is ready.",
        ),
    ] = 120.0
