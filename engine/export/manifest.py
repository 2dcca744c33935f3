"""``manifest.json``: everything that serving needs to know of an export, without the packages that made it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.backends.base import ModelFacts
from engine.export.errors import (
    CorruptManifestError,
    ExportVersionError,
    NotAnExportError,
)
from engine.models.added import AddedInputs
from engine.models.attention import LayerColumns

FORMAT = 3
"""Raised with every change after which older exports cannot be read."""

REGIONAL = "unet_regions"
"""The graph of rows whose references have regions; compiled when the first of them comes."""

MANIFEST = "manifest.json"
TOKENIZERS = ("tokenizer.json", "tokenizer_2.json")
"""The second is SDXL's."""
UNCONDITIONAL = "unconditional.safetensors"


def region_input(level: int) -> str:
    """Return the name of the input that has the regions of a level of the UNet."""
    return f"regions_{level}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """An input or output of a graph: ``shape`` has a number or the name of a dynamic axis for each dimension."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDigest:
    """A file: its path relative to its directory, its size and its SHA-256 (hex)."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphEntry:
    """A graph: its ONNX file, the file of its weights where they lie outside, its inputs and outputs in order."""

    onnx: FileDigest
    data: FileDigest | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def files(self) -> tuple[FileDigest, ...]:
        """All files of the graph."""
        return (self.onnx,) if self.data is None else (self.onnx, self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSettings:
    """How texts become ``input_ids``: CLIP's window of so many tokens, padded with one token, each encoder's own."""

    tokens: int
    pad_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSettings:
    """How pixels are normalised for the image encoder, by channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterEntry:
    """An adapter: the graph of its image encoder, and which of its outputs it takes (image_embeds or hidden)."""

    name: str
    encoder: str
    features: str
    image: ImageSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """An export. ``size`` is (height, width) in pixels where the UNet's is static, None where it is dynamic.

    ``source`` are the model's files from which it was made; ``versions`` are of the packages that made it.
    ``columns`` are the cross-attention layers' columns of the packed K/V, ``added`` what else the UNet reads of a row.
    """

    format: int
    model: str
    weights_hash: str
    source: tuple[FileDigest, ...]
    versions: dict[str, str]
    opset: int
    dtype: str
    size: tuple[int, int] | None
    scaling_factor: float
    columns: tuple[LayerColumns, ...]
    added: AddedInputs
    facts: ModelFacts
    prompts: PromptSettings
    adapters: tuple[AdapterEntry, ...]
    graphs: dict[str, GraphEntry]
    files: tuple[FileDigest, ...]
    """Files beside the graphs: the tokenizers, the unconditional tokens."""

    @property
    def width(self) -> int:
        """D: columns of the packed K/V."""
        return self.columns[-1].end

    @property
    def everything(self) -> tuple[FileDigest, ...]:
        """All files of the export but the manifest."""
        return (*(file for graph in self.graphs.values() for file in graph.files), *self.files)


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` into a directory."""
    document = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    (root / MANIFEST).write_bytes(document + b"\n")


def read_manifest(root: Path) -> Manifest:
    """Read a directory's manifest, without looking at the files that it names.

    Raises ``NotAnExportError``, ``ExportVersionError`` and ``CorruptManifestError``.
    """
    path = root / MANIFEST
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise NotAnExportError("not an export: it has no manifest.json", path=root) from None
    except OSError as error:
        raise CorruptManifestError("not readable", path=path, found=str(error)) from error
    try:
        found = msgspec.json.decode(content)
        version = found.get("format") if isinstance(found, dict) else None
        if version != FORMAT:
            raise ExportVersionError(
                "the export has another format; export the model again",
                path=path,
                expected=str(FORMAT),
                found=repr(version),
            )
        return msgspec.convert(found, Manifest)
    except msgspec.MsgspecError as error:
        raise CorruptManifestError("not a manifest", path=path, found=str(error)) from error
