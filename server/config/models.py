"""Which models are served, and with which options each of their engines runs."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

import msgspec

from server.config.engine_options import EngineOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """One model. ``name`` is what requests call it, empty for what the model calls itself."""

    name: str
    options: EngineOptions

    @property
    def engines(self) -> tuple[EngineOptions, ...]:
        """The options of each of its engines: one a device. Those on the CPU share its cores evenly."""
        devices = self.options.devices or (self.options.device,)
        on_cpu = sum(map(_is_cpu, devices))
        share = max(1, len(os.sched_getaffinity(0)) // on_cpu) if on_cpu > 1 else 0
        return tuple(
            msgspec.structs.replace(
                self.options,
                device=device,
                devices=(),
                threads=self.options.threads or (share if _is_cpu(device) else 0),
            )
            for device in devices
        )


def served_models(options: EngineOptions) -> tuple[ServedModel, ...]:
    """Return the models, the default first. ``engine.adapter`` and ``engine.loras`` are the default's alone."""
    name, path = _name_and_path(options.model)
    default = ServedModel(name=name, options=msgspec.structs.replace(options, model=path, models=()))
    return default, *(
        ServedModel(
            name=(name or _folder(path)) if path else "",
            options=msgspec.structs.replace(default.options, model=path, adapter="", loras=()),
        )
        for name, path in map(_name_and_path, options.models)
    )


def model_problems(options: EngineOptions) -> list[str]:
    """Return what is wrong with the names, the directories and the engines of the models, taken together."""
    default, *further = served_models(options)
    nameless = [text for model, text in zip(further, options.models, strict=True) if not model.name]
    if nameless:
        return [f"engine.models: {text!r} names no directory" for text in nameless]
    lanes = options.lanes
    if few := next((each.threads for each in default.engines if 0 < each.threads < lanes), 0):
        return [f"engine.lanes: {lanes} is more than the CPU threads of an engine ({few})"]
    names = Counter([default.name or _folder(default.options.model), *(model.name for model in further)])
    return [
        f"engine.models: the name {name!r} is used {count} times; tell the models apart with `name=path`"
        for name, count in names.items()
        if name and count > 1
    ]


def _is_cpu(device: str) -> bool:
    return device.partition(":")[0] == "cpu"


def _name_and_path(text: str) -> tuple[str, str]:
    """Split ``name=path``; a path whose first part has a ``=`` can be written with ``./`` before it."""
    name, equals, path = text.partition("=")
    return (name.strip(), path.strip()) if equals and "/" not in name else ("", text)


def _folder(path: str) -> str:
    return os.path.basename(os.path.abspath(path)) if path else ""  # noqa: PTH100, PTH119 - not resolved: as it was written
