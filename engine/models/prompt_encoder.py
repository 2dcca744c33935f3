"""Prompts to text-encoder embeddings, as the Stable Diffusion pipeline encodes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from engine.backends.base import EncodedPrompt
from engine.models.errors import CorruptFileError, MissingFileError
from engine.models.layout import ModelLayout
from engine.models.weights import build_module, read_tensors


class PromptEncoder:
    """CLIP's tokenizer and text model. Source: diffusers ``StableDiffusionPipeline.encode_prompt``."""

    def __init__(self, tokenizer: Any, model: Any) -> None:
        self.tokenizer = tokenizer
        self.model = model
        self.tokens = int(tokenizer.model_max_length)
        """Length of the window, start and end tokens included."""
        self.uses_mask = bool(getattr(model.config, "use_attention_mask", False))

    def encode(self, texts: Sequence[str]) -> list[EncodedPrompt]:
        """Encode texts in one batch, each padded or cut to the window, saying what was cut off."""
        if not texts:
            return []
        batch = self.tokenizer(
            list(texts), padding="max_length", max_length=self.tokens, truncation=True, return_tensors="pt"
        )
        device = self.model.device
        mask = batch.attention_mask.to(device) if self.uses_mask else None
        with torch.inference_mode():
            embeddings = self.model(batch.input_ids.to(device), attention_mask=mask)[0]
        return [
            EncodedPrompt(embedding=embedding, dropped=self.dropped(text))
            for text, embedding in zip(texts, embeddings, strict=True)
        ]

    def dropped(self, text: str) -> str:
        """Return the part of a text that does not fit the window, as diffusers' warning words it, or ''."""
        # verbose=False: the tokenizer's own warning says less than what is returned here.
        ids = self.tokenizer(text, verbose=False).input_ids
        if len(ids) <= self.tokens:
            return ""
        # batch_decode on purpose: decode alone skips the tokenizer's end-of-word clean-up in some releases.
        return str(self.tokenizer.batch_decode([ids[self.tokens - 1 : -1]])[0])


def load_prompt_encoder(layout: ModelLayout, *, dtype: torch.dtype) -> PromptEncoder:
    """Load ``tokenizer/`` and ``text_encoder/``. Raises the ``ModelError`` family."""
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    folder = layout.root / "tokenizer"
    if not (folder / "tokenizer.json").is_file():
        for name in ("vocab.json", "merges.txt"):
            if not (folder / name).is_file():
                raise MissingFileError("file is missing", path=folder / name)
    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exception for a broken file
        raise CorruptFileError("tokenizer cannot be read", path=folder, found=str(error)) from error

    config = CLIPTextConfig(**layout.config("text_encoder"))
    files = layout.weights("text_encoder", "model")
    # transformers 5 dropped the prefix that published files carry.
    tensors = {name.removeprefix("text_model."): tensor for name, tensor in read_tensors(files).items()}
    model = build_module(
        lambda: CLIPTextModel(config), tensors, files[0], dtype=dtype, ignore=("embeddings.position_ids",)
    )
    if len(tokenizer) > config.vocab_size or tokenizer.model_max_length > config.max_position_embeddings:
        raise CorruptFileError(
            "tokenizer does not fit the text encoder",
            path=folder,
            expected=f"at most {config.vocab_size} entries, {config.max_position_embeddings} tokens",
            found=f"{len(tokenizer)} entries, {tokenizer.model_max_length} tokens",
        )
    return PromptEncoder(tokenizer, model)
