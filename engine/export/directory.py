"""An export on the disk, opened for serving: nothing is read from it that its manifest does not vouch for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from engine.export.activations import ACTIVATIONS, Range, read_activations, weights_of
from engine.export.digest import verify_files
from engine.export.errors import CorruptManifestError, GraphMismatchError, NotCalibratedError
from engine.export.manifest import (
    MANIFEST,
    TOKENIZERS,
    UNCONDITIONAL,
    GraphEntry,
    Manifest,
    read_manifest,
)
from engine.files.digest import sha256_of

GRAPHS = ("unet", "vae_decoder", "text_kv")
TEXT_GRAPHS = ("text_encoder", "text_encoder_2")
"""The second is SDXL's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportDirectory:
    """An export whose files are those that the manifest describes. ``digest`` is the manifest's own SHA-256 (hex)."""

    root: Path
    manifest: Manifest
    digest: str

    @classmethod
    def open(cls, root: Path) -> ExportDirectory:
        """Open an export and compare every file with its digest (about a second a gigabyte).

        Raises the ``ExportError`` family, naming the file, what was expected and what was found.
        """
        manifest = read_manifest(root)
        _check_graphs(root, manifest)
        verify_files(root, manifest.everything)
        return cls(root=root, manifest=manifest, digest=sha256_of(root / MANIFEST))

    def graph(self, name: str) -> tuple[Path, GraphEntry]:
        """Return a graph's ONNX file and what the manifest says about it."""
        entry = self.manifest.graphs[name]
        return self.root / entry.onnx.file, entry

    @property
    def text_graphs(self) -> tuple[str, ...]:
        """The text encoders' graphs."""
        return TEXT_GRAPHS[: len(self.manifest.prompts.pad_ids)]

    @property
    def tokenizers(self) -> tuple[Path, ...]:
        """The files of the text encoders' tokenizers."""
        return tuple(self.root / name for name in TOKENIZERS[: len(self.manifest.prompts.pad_ids)])

    def unconditional_tokens(self) -> dict[str, torch.Tensor]:
        """Return each adapter's tokens of the unconditional row, ``[tokens, E]`` f32, by the adapter's name."""
        from safetensors.torch import load_file

        return load_file(self.root / UNCONDITIONAL) if self.manifest.adapters else {}

    def activations(self) -> dict[str, Range]:
        """Return the ranges of the inputs of the UNet's and the decoder's layers.

        Raises ``NotCalibratedError`` where the model had none when it was exported, or those of other weights, and
        ``CorruptActivationsError``.
        """
        if all(file.file != ACTIVATIONS for file in self.manifest.files):
            raise NotCalibratedError(
                "int8 needs to know between which values activations lie: run limner-engine calibrate on the model, "
                "and export it again",
                path=self.root,
                expected=ACTIVATIONS,
                found=f"the export of a model without it ({self.manifest.model})",
            )
        return read_activations(self.root / ACTIVATIONS, weights_of(self.manifest.source))


def _check_graphs(root: Path, manifest: Manifest) -> None:
    """Raise ``CorruptManifestError`` or ``GraphMismatchError`` for a manifest that does not fit together."""
    path = root / MANIFEST
    if not 1 <= len(manifest.prompts.pad_ids) <= len(TEXT_GRAPHS):
        raise CorruptManifestError("the number of text encoders makes no sense", path=path)
    wanted = [*GRAPHS, *TEXT_GRAPHS[: len(manifest.prompts.pad_ids)]]
    for adapter in manifest.adapters:
        wanted += [adapter.encoder, f"adapters/{adapter.name}", f"adapters/{adapter.name}_kv"]
    for name in wanted:
        if name not in manifest.graphs:
            raise CorruptManifestError("a graph is missing", path=path, expected=name)
    for file in manifest.everything:
        if Path(file.file).is_absolute() or ".." in Path(file.file).parts:
            raise CorruptManifestError("a file lies outside the export", path=path, found=file.file)
    for name, width in (("unet", "kv_text"), ("unet", "kv_ip"), ("text_kv", "kv")):
        graph = manifest.graphs[name]
        found = {spec.name: spec.shape for spec in (*graph.inputs, *graph.outputs)}.get(width)
        if found is None or found[-1] != manifest.width:
            raise GraphMismatchError(
                f"{name}: {width} does not fit the packed keys and values",
                path=path,
                expected=f"{manifest.width} columns",
                found=str(found),
            )
