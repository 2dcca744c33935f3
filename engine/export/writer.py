"""Write a model's export: into a folder beside its place, which takes that place when everything is in it."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from engine.export.activations import ACTIVATIONS
from engine.export.digest import digest_file
from engine.export.errors import ExportWriteError
from engine.export.graphfile import write_graph
from engine.export.graphs import graph_sources, image_graphs
from engine.export.manifest import (
    FORMAT,
    TOKENIZERS,
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
from engine.files.replacement import replacing
from engine.models.dtypes import DTYPES
from engine.models.errors import UnsupportedModelError
from engine.models.model import Model, load_model

Progress = Callable[[str], object]


def export_model(root: Path, output: Path, settings: ExportSettings, progress: Progress = print) -> Manifest:
    """Export a directory in diffusers' layout to ``output``, which must not exist.

    Nothing is ever to be seen at ``output`` but a whole export. Raises the ``ModelError`` family, to which
    ``ExportError`` belongs.
    """
    if output.exists():
        raise ExportWriteError("the output exists already", path=output)
    progress(f"loading {root}")
    model = load_model(root, adapter=settings.adapter, dtype=DTYPES[settings.dtype], loras=settings.loras)
    _check_size(root, model, settings.size)
    with _appearing(output) as folder:
        graphs = _write_graphs(model, folder, settings, progress)
        progress("writing tokenizer and manifest")
        files = []
        for name, tokenizer in zip(TOKENIZERS, model.prompts.tokenizers, strict=False):
            _write_tokenizer(tokenizer, folder / name)
            files.append(name)
        if _write_unconditional(model, folder / UNCONDITIONAL):
            files.append(UNCONDITIONAL)
        if (root / ACTIVATIONS).is_file():
            # As it is: who calibrates a model anew exports it first.
            shutil.copyfile(root / ACTIVATIONS, folder / ACTIVATIONS)
            files.append(ACTIVATIONS)
        manifest = Manifest(
            format=FORMAT,
            model=model.facts.name,
            weights_hash=model.facts.weights_hash,
            source=tuple(digest_file(root, path) for path in source_files(root)),
            versions={package: importlib.metadata.version(package) for package in PACKAGES},
            opset=settings.chosen_opset,
            dtype=settings.dtype,
            size=settings.size,
            scaling_factor=model.decoder.scaling_factor,
            columns=model.unet.columns,
            added=model.unet.added,
            facts=model.facts,
            prompts=PromptSettings(
                tokens=model.prompts.tokens,
                pad_ids=tuple(int(tokenizer.pad_token_id) for tokenizer in model.prompts.tokenizers),
            ),
            adapters=_adapters(model),
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
    if getattr(model.prompts, "uses_mask", False):
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


def _write_tokenizer(tokenizer: Any, path: Path) -> None:
    """Write the fast tokenizer, which every tokenizer of transformers 5 has within, without padding or truncation."""
    from tokenizers import Tokenizer

    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_padding()
    plain.no_truncation()
    path.write_text(plain.to_str(), encoding="utf-8")


def _write_unconditional(model: Model, path: Path) -> bool:
    from safetensors.numpy import save

    tokens: dict[str, np.ndarray] = {
        name: tensor.contiguous().numpy() for name, tensor in model.unconditional_tokens.items()
    }
    if tokens:
        path.write_bytes(save(tokens))
    return bool(tokens)


def _adapters(model: Model) -> tuple[AdapterEntry, ...]:
    graphs = image_graphs(model)
    return tuple(
        AdapterEntry(
            name=adapter.name,
            encoder=graphs[adapter.name],
            features="hidden" if adapter.adapter.takes_hidden_states else "image_embeds",
            image=ImageSettings(
                mean=tuple(adapter.encoder.mean.tolist()), std=tuple(adapter.encoder.std.tolist())
            ),
        )
        for adapter in model.adapters.values()
    )


@contextmanager
def _appearing(output: Path) -> Iterator[Path]:
    """Give a folder that is at ``output`` at the end, and nowhere if that is not reached."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportWriteError("cannot be written to", path=output.parent, found=str(error)) from error
    try:
        with replacing(output) as folder:
            folder.mkdir()
            yield folder
    except OSError as error:
        raise ExportWriteError("the export could not be written", path=output, found=str(error)) from error
