"""Write a model's export: into a folder beside its place, which takes that place when everything is in it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from engine.export.digest import digest_file
from engine.export.errors import ExportWriteError
from engine.export.graphfile import write_graph
from engine.export.graphs import adapters_of, graph_sources
from engine.export.manifest import (
    FORMAT,
    TOKENIZER,
    UNCONDITIONAL,
    AdapterEntry,
    GraphEntry,
    ImageSettings,
    Manifest,
    PromptSettings,
    write_manifest,
)
from engine.export.settings import PACKAGES, ExportSettings
from engine.export.source import source_files
from engine.models.errors import UnsupportedModelError
from engine.models.model import Model, load_model

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

Progress = Callable[[str], object]


def export_model(root: Path, output: Path, settings: ExportSettings, progress: Progress = print) -> Manifest:
    """Export a directory in diffusers' layout to ``output``, which must not exist.

    Nothing is ever to be seen at ``output`` but a whole export. Raises the ``ModelError`` family, to which
    ``ExportError`` belongs.
    """
    if output.exists():
        raise ExportWriteError("the output exists already", path=output)
    progress(f"loading {root}")
    model = load_model(root, adapter=settings.adapter, dtype=DTYPES[settings.dtype])
    _check_size(root, model, settings.size)
    with _appearing(output) as folder:
        graphs = _write_graphs(model, folder, settings, progress)
        progress("writing tokenizer and manifest")
        _write_tokenizer(model, folder / TOKENIZER)
        files = [TOKENIZER]
        if _write_unconditional(model, folder / UNCONDITIONAL):
            files.append(UNCONDITIONAL)
        encoder = model.image_encoder
        manifest = Manifest(
            format=FORMAT,
            model=model.facts.name,
            weights_hash=model.facts.weights_hash,
            source=tuple(digest_file(root, path) for path in source_files(root, settings.adapter)),
            versions={package: importlib.metadata.version(package) for package in PACKAGES},
            opset=settings.chosen_opset,
            dtype=settings.dtype,
            size=settings.size,
            scaling_factor=model.decoder.scaling_factor,
            columns=model.unet.columns,
            facts=model.facts,
            prompts=PromptSettings(
                tokens=model.prompts.tokens, pad_id=int(model.prompts.tokenizer.pad_token_id)
            ),
            image=None if encoder is None else _image_settings(encoder.mean, encoder.std),
            adapters=tuple(
                AdapterEntry(
                    name=adapter.name,
                    kind=adapter.kind,
                    features="hidden" if adapter.takes_hidden_states else "image_embeds",
                )
                for adapter in adapters_of(model)
            ),
            graphs=graphs,
            files=tuple(digest_file(folder, folder / name) for name in files),
        )
        write_manifest(folder, manifest)
    progress(f"wrote {output}")
    return manifest


def _check_size(root: Path, model: Model, size: tuple[int, int] | None) -> None:
    multiple = model.facts.size_multiple
    if size is not None and any(side % multiple for side in size):
        raise UnsupportedModelError(
            "the model cannot draw this size",
            path=root,
            expected=f"multiples of {multiple}",
            found="{}x{}".format(*size),
        )
    if model.prompts.uses_mask:
        raise UnsupportedModelError(
            "a text encoder that wants an attention mask cannot be exported",
            path=root / "text_encoder" / "config.json",
        )


def _write_graphs(
    model: Model, folder: Path, settings: ExportSettings, progress: Progress
) -> dict[str, GraphEntry]:
    graphs: dict[str, GraphEntry] = {}
    for source in graph_sources(model, settings.size):
        progress(f"exporting {source.name}")
        graphs[source.name] = write_graph(source, folder, opset=settings.chosen_opset)
    return graphs


def _write_tokenizer(model: Model, path: Path) -> None:
    """Write the fast tokenizer, which every tokenizer of transformers 5 has within, without padding or truncation."""
    from tokenizers import Tokenizer

    plain = Tokenizer.from_str(model.prompts.tokenizer.backend_tokenizer.to_str())
    plain.no_padding()
    plain.no_truncation()
    path.write_text(plain.to_str(), encoding="utf-8")


def _write_unconditional(model: Model, path: Path) -> bool:
    from safetensors.numpy import save

    if model.unconditional_tokens is None:
        return False
    tokens: dict[str, np.ndarray] = {
        adapter.name: model.unconditional_tokens.contiguous().numpy() for adapter in adapters_of(model)
    }
    path.write_bytes(save(tokens))
    return True


def _image_settings(mean: torch.Tensor, std: torch.Tensor) -> ImageSettings:
    return ImageSettings(mean=tuple(mean.tolist()), std=tuple(std.tolist()))


@contextmanager
def _appearing(output: Path) -> Iterator[Path]:
    """Give a folder beside ``output`` that is renamed to it at the end, and removed if that is not reached."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise ExportWriteError("cannot be written to", path=output.parent, found=str(error)) from error
    try:
        yield folder
        for path in folder.rglob("*"):
            _flush(path)
        _flush(folder)
        folder.chmod(0o755)
        folder.rename(output)
        _flush(output.parent)
    except OSError as error:
        raise ExportWriteError("the export could not be written", path=output, found=str(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _flush(path: Path) -> None:
    """Bring a file or a folder's entries to the disk: after a crash a renamed folder must not hold empty files."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
