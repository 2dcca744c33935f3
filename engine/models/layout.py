"""Where things are in a model directory of diffusers' layout, and its JSON files."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.models.errors import (
    AdapterChoiceError,
    CorruptFileError,
    MissingFileError,
    NotAModelError,
    PickleRefusedError,
    UnsupportedModelError,
    WrongDefaultError,
)

PIPELINES = {
    "StableDiffusionPipeline": "sd",
    "LatentConsistencyModelPipeline": "sd",
    "StableDiffusionXLPipeline": "sdxl",
}
"""The pipeline classes that are run, and how their parts fit together."""

DEFAULTS = "limner.json"
ADAPTERS = "ip_adapter"
LORAS = "lora"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises ``MissingFileError`` or ``CorruptFileError``."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFileError("file is missing", path=path) from None
    except (ValueError, OSError) as error:
        raise CorruptFileError("not readable as JSON", path=path, found=str(error)) from error
    if not isinstance(value, dict):
        raise CorruptFileError("not a JSON object", path=path, found=type(value).__name__)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedDefaults:
    """What a model wants where a request says nothing; None where the model says nothing either."""

    steps: int | None = None
    guidance_scale: float | None = None
    adapter: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLayout:
    """A model directory: ``model_index.json``, one folder a component, ``ip_adapter/*.safetensors`` and ``lora/``.

    ``docs/models.md`` describes it. Source: diffusers ``pipelines/pipeline_utils.py`` (save_pretrained); adapters as
    in h94/IP-Adapter.
    """

    root: Path
    index: dict[str, Any]

    @classmethod
    def open(cls, root: Path) -> ModelLayout:
        """Open a model directory. Raises ``NotAModelError`` or ``UnsupportedModelError``."""
        path = root / "model_index.json"
        if not path.is_file():
            raise NotAModelError("not a model directory: it has no model_index.json", path=root)
        index = read_json(path)
        kind = index.get("_class_name")
        if kind not in PIPELINES:
            raise UnsupportedModelError(
                "pipeline class is not supported",
                path=path,
                expected=" or ".join(PIPELINES),
                found=repr(kind),
            )
        return cls(root=root, index=index)

    @property
    def is_sdxl(self) -> bool:
        """Whether the parts fit together as SDXL's: two text encoders, pooled text and sizes."""
        return PIPELINES[str(self.index["_class_name"])] == "sdxl"

    def names(self, component: str) -> bool:
        """Say whether ``model_index.json`` names a component; ``[null, null]`` stands for one that is left out."""
        entry = self.index.get(component)
        return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None

    def config(self, component: str, name: str = "config.json") -> dict[str, Any]:
        """Read a component's JSON configuration."""
        return read_json(self.root / component / name)

    def defaults(self) -> StatedDefaults:
        """Read ``limner.json`` beside ``model_index.json``, if there is one; each key may be missing.

        ``default_num_inference_steps`` is an integer of at least 1, ``default_guidance_scale`` a number of at least
        1, ``default_adapter`` the name of a file in ``ip_adapter/``. Raises ``WrongDefaultError`` for anything else,
        unknown keys included, and ``CorruptFileError``.
        """
        path = self.root / DEFAULTS
        if not path.exists():
            return StatedDefaults()
        stated = read_json(path)
        steps = stated.pop("default_num_inference_steps", None)
        guidance = stated.pop("default_guidance_scale", None)
        adapter = stated.pop("default_adapter", None)
        if stated:
            expected = "default_num_inference_steps, default_guidance_scale, default_adapter"
            raise WrongDefaultError("unknown key", path=path, expected=expected, found=", ".join(stated))
        if steps is not None and (type(steps) is not int or steps < 1):
            raise WrongDefaultError(
                "default_num_inference_steps",
                path=path,
                expected="an integer of at least 1",
                found=repr(steps),
            )
        if guidance is not None and (type(guidance) not in (int, float) or not 1 <= guidance < math.inf):
            raise WrongDefaultError(
                "default_guidance_scale", path=path, expected="a number of at least 1", found=repr(guidance)
            )
        if adapter is not None and adapter not in self.adapters():
            raise WrongDefaultError(
                "default_adapter",
                path=path,
                expected=" or ".join(self.adapters()) or "no adapter",
                found=repr(adapter),
            )
        return StatedDefaults(
            steps=steps,
            guidance_scale=None if guidance is None else float(guidance),
            adapter=adapter,
        )

    def weights(self, component: str, stem: str) -> list[Path]:
        """List the safetensors files of a component: one, or the shards that its index names.

        Raises ``PickleRefusedError`` if the weights exist as a pickle alone, ``MissingFileError`` if not at all.
        """
        folder = self.root / component
        for name in (f"{stem}.safetensors", f"{stem}.fp16.safetensors"):
            if (folder / name).is_file():
                return [folder / name]
        shards = folder / f"{stem}.safetensors.index.json"
        if shards.is_file():
            mapping = read_json(shards).get("weight_map")
            if not isinstance(mapping, dict) or not mapping:
                raise CorruptFileError("shard index has no weight_map", path=shards)
            files = [folder / Path(str(name)).name for name in sorted(set(mapping.values()))]
            for file in files:
                if not file.is_file():
                    raise MissingFileError("shard is missing", path=file)
            return files
        expected = f"{stem}.safetensors"
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                if path.suffix in PICKLES:
                    raise PickleRefusedError("weights are a pickle", path=path, expected=expected)
        raise MissingFileError("weights are missing", path=folder / expected)

    def adapters(self) -> dict[str, Path]:
        """Map adapter names (file stems) to their safetensors files."""
        return {path.stem: path for path in sorted((self.root / ADAPTERS).glob("*.safetensors"))}

    def loras(self) -> list[Path]:
        """List the LoRAs that belong to the model. Raises ``PickleRefusedError`` for one that is a pickle."""
        folder = self.root / LORAS
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        for path in found:
            if path.suffix in PICKLES:
                raise PickleRefusedError("LoRA is a pickle", path=path, expected="*.safetensors")
        return [path for path in found if path.suffix == ".safetensors"]

    def image_encoder_of(self, adapter: str) -> str:
        """Return the folder of an adapter's image encoder: ``image_encoder``, or what ``<adapter>.json`` names.

        Raises ``CorruptFileError`` for a JSON file that says anything else.
        """
        path = self.root / ADAPTERS / f"{adapter}.json"
        if not path.exists():
            return "image_encoder"
        stated = read_json(path)
        folder = stated.get("image_encoder")
        if set(stated) != {"image_encoder"} or not isinstance(folder, str) or Path(folder).name != folder:
            raise CorruptFileError(
                "not the settings of an adapter",
                path=path,
                expected='{"image_encoder": "<folder of the model directory>"}',
                found=json.dumps(stated),
            )
        return folder

    def default_adapter(self, name: str | None) -> str | None:
        """Choose the default adapter: the one named, the one that ``limner.json`` names, or the only one.

        None if the model has none and none was named. Raises ``AdapterChoiceError`` and, where an adapter exists as a
        pickle alone, ``PickleRefusedError``.
        """
        found = self.adapters()
        folder = self.root / ADAPTERS
        if folder.is_dir() and (not found or (name is not None and name not in found)):
            for path in sorted(folder.iterdir()):
                if path.suffix in PICKLES and name in (None, path.stem):
                    raise PickleRefusedError("adapter is a pickle", path=path, expected="*.safetensors")
        if name is None:
            name = self.defaults().adapter
        if name is None and len(found) <= 1:
            return next(iter(found), None)
        if name is not None and name in found:
            return name
        what = "no such adapter" if name is not None else "several adapters and none was named as the default"
        raise AdapterChoiceError(what, path=folder, expected=name, found=", ".join(found) or "none")
