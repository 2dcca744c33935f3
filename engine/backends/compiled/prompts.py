"""Texts to token ids with the tokenizers library alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.export.directory import ExportDirectory
from engine.export.errors import DamagedExportError

END_OF_WORD = "</w>"


class PromptTokenizer:
    """CLIP's tokenizer as ``engine.models.prompt_encoder`` uses it, without transformers."""

    def __init__(self, export: ExportDirectory) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(export.tokenizer))
        except Exception as error:  # the library raises bare Exception
            raise DamagedExportError(
                "tokenizer cannot be read", path=export.tokenizer, found=str(error)
            ) from error
        self._window = export.manifest.prompts.tokens
        self._pad = export.manifest.prompts.pad_id

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
