"""Texts to token ids with the tokenizers library alone, and through the text encoders' graphs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from engine.backends.base import EncodedPrompt
from engine.backends.compiled.graphs import Graphs
from engine.export.directory import ExportDirectory
from engine.export.errors import DamagedExportError

END_OF_WORD = "</w>"


class PromptTokenizer:
    """CLIP's tokenizer as ``engine.models.prompt_encoder`` uses it, without transformers."""

    def __init__(self, path: Path, *, window: int, pad_id: int) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise DamagedExportError("tokenizer cannot be read", path=path, found=str(error)) from error
        self._window = window
        self._pad = pad_id

    def encode(self, texts: Sequence[str]) -> tuple[torch.Tensor, list[str]]:
        """Return ``input_ids [N, T]`` int64, each padded or cut to the window, and what was cut off of each text."""
        ids = torch.full((len(texts), self._window), self._pad, dtype=torch.int64)
        dropped: list[str] = []
        for row, text in zip(ids, texts, strict=True):
            found = self._tokenizer.encode(text).ids
            cut: list[int] = []
            if len(found) > self._window:
                # The end token stays.
                cut = found[self._window - 1 : -1]
                found = [*found[: self._window - 1], found[-1]]
            row[: len(found)] = torch.tensor(found)
            dropped.append(self._text(cut))
        return ids, dropped

    def _text(self, ids: Sequence[int]) -> str:
        # CLIP's word ends, cleaned up as transformers' CLIPTokenizer does (tokenization_clip.py).
        text = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return str(text).replace(END_OF_WORD, " ").strip()


class PromptGraphs:
    """Encodes prompts as the pipelines of diffusers do, through an export's one or two text encoders."""

    def __init__(self, export: ExportDirectory, graphs: Graphs) -> None:
        settings = export.manifest.prompts
        self._graphs = graphs
        self._towers = [
            (graph, PromptTokenizer(path, window=settings.tokens, pad_id=pad_id))
            for graph, path, pad_id in zip(
                export.text_graphs, export.tokenizers, settings.pad_ids, strict=True
            )
        ]

    def encode(self, texts: Sequence[str]) -> list[EncodedPrompt]:
        """Encode texts, one after the other: no last bit depends on what else is asked for."""
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> EncodedPrompt:
        hidden: list[torch.Tensor] = []
        pooled: torch.Tensor | None = None
        cut = ""
        for number, (graph, tokenizer) in enumerate(self._towers):
            ids, dropped = tokenizer.encode([text])
            found = self._graphs.run(graph, {"input_ids": ids})
            hidden.append(found["hidden"][0].float())
            if "pooled" in found:
                pooled = found["pooled"][0].float()
            # Both tokenizers of SDXL cut alike.
            cut = dropped[0] if number == 0 else cut
        return EncodedPrompt(embedding=torch.cat(hidden, dim=-1), dropped=cut, pooled=pooled)
