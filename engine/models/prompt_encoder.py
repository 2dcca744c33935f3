"""Prompts to text-encoder embeddings, as the Stable Diffusion pipelines encode them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from engine.backends.base import EncodedPrompt
from engine.models.errors import CorruptFileError, MissingFileError
from engine.models.layout import ModelLayout
from engine.models.lora import LoraSet
from engine.models.weights import build_module, read_tensors


class PromptEncoder:
    """CLIP's tokenizer and text model. Source: diffusers ``StableDiffusionPipeline.encode_prompt``."""

    def __init__(self, tokenizer: Any, model: Any) -> None:
        self.tokenizer = tokenizer
        self.model = model
        self.tokenizers, self.models = (tokenizer,), (model,)
        self.tokens = int(tokenizer.model_max_length)
        """Length of the window, start and end tokens included."""
        self.width = int(model.config.hidden_size)
        """Width of the embeddings."""
        self.pooled_width = 0
        """Width of the pooled embedding; 0 where the UNet takes none."""
        self.uses_mask = bool(getattr(model.config, "use_attention_mask", False))

    def encode(self, texts: Sequence[str]) -> list[EncodedPrompt]:
        """Encode texts in one batch, each padded or cut to the window, saying what was cut off."""
        if not texts:
            return []
        batch = tokenize(self.tokenizer, texts)
        device = self.model.device
        mask = batch.attention_mask.to(device) if self.uses_mask else None
        with torch.inference_mode():
            embeddings = self.model(batch.input_ids.to(device), attention_mask=mask)[0]
        return [
            EncodedPrompt(embedding=embedding, dropped=self.dropped(text))
            for text, embedding in zip(texts, embeddings, strict=True)
        ]

    def dropped(self, text: str) -> str:
        """Return the part of a text that does not fit the window, or ''."""
        return dropped_text(self.tokenizer, text)


class XLPromptEncoder:
    """SDXL's two text models. Source: diffusers ``StableDiffusionXLPipeline.encode_prompt``.

    The embedding is the penultimate hidden states of both, side by side; ``pooled`` is the second's projection.
    """

    def __init__(self, tokenizers: tuple[Any, Any], models: tuple[Any, Any]) -> None:
        self.tokenizers = tokenizers
        self.models = models
        self.tokens = int(tokenizers[0].model_max_length)
        """Length of the window, start and end tokens included."""
        self.width = sum(int(model.config.hidden_size) for model in models)
        """Width of the embeddings."""
        self.pooled_width = int(models[1].config.projection_dim)
        """Width of the pooled embedding."""

    def encode(self, texts: Sequence[str]) -> list[EncodedPrompt]:
        """Encode texts in one batch, each padded or cut to the window, saying what was cut off."""
        if not texts:
            return []
        with torch.inference_mode():
            outputs = [
                model(tokenize(tokenizer, texts).input_ids.to(model.device), output_hidden_states=True)
                for tokenizer, model in zip(self.tokenizers, self.models, strict=True)
            ]
            embeddings = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        return [
            EncodedPrompt(embedding=embedding, dropped=self.dropped(text), pooled=pooled)
            for text, embedding, pooled in zip(texts, embeddings, outputs[1].text_embeds, strict=True)
        ]

    def dropped(self, text: str) -> str:
        """Return the part of a text that does not fit the window, or ''; both tokenizers cut alike."""
        return dropped_text(self.tokenizers[0], text)


def tokenize(tokenizer: Any, texts: Sequence[str]) -> Any:
    """Return ``input_ids [N, T]`` and ``attention_mask`` of texts padded or cut to the tokenizer's window."""
    return tokenizer(
        list(texts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )


def dropped_text(tokenizer: Any, text: str) -> str:
    """Return the part of a text that does not fit the window, as diffusers' warning words it, or ''."""
    # verbose=False: the tokenizer's own warning says less than what is returned here.
    ids = tokenizer(text, verbose=False).input_ids
    window = int(tokenizer.model_max_length)
    if len(ids) <= window:
        return ""
    # batch_decode on purpose: decode alone skips the tokenizer's end-of-word clean-up in some releases.
    return str(tokenizer.batch_decode([ids[window - 1 : -1]])[0])


def load_prompt_encoder(
    layout: ModelLayout, *, dtype: torch.dtype, loras: LoraSet | None = None
) -> PromptEncoder | XLPromptEncoder:
    """Load ``tokenizer/`` and ``text_encoder/``, for SDXL ``tokenizer_2/`` and ``text_encoder_2/`` too.

    Raises the ``ModelError`` family.
    """
    if not layout.is_sdxl:
        return PromptEncoder(*_load_tower(layout, "tokenizer", "text_encoder", dtype, loras))
    first = _load_tower(layout, "tokenizer", "text_encoder", dtype, loras)
    second = _load_tower(layout, "tokenizer_2", "text_encoder_2", dtype, loras)
    if first[0].model_max_length != second[0].model_max_length:
        raise CorruptFileError(
            "tokenizers have windows of different lengths",
            path=layout.root / "tokenizer_2",
            expected=str(first[0].model_max_length),
            found=str(second[0].model_max_length),
        )
    return XLPromptEncoder((first[0], second[0]), (first[1], second[1]))


def _load_tower(
    layout: ModelLayout, tokenizer_folder: str, component: str, dtype: torch.dtype, loras: LoraSet | None
) -> tuple[Any, Any]:
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

    folder = layout.root / tokenizer_folder
    tokenizer = _load_tokenizer(layout, tokenizer_folder)
    config = CLIPTextConfig(**layout.config(component))
    files = layout.weights(component, "model")
    projected = component == "text_encoder_2"
    # transformers 5 dropped the prefix that published files carry, but for the model with a projection.
    prefix = "text_model."
    tensors = read_tensors(files)
    if not projected:
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    if loras is not None:
        loras.fuse(component, tensors)
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    model = build_module(
        lambda: kind(config),
        tensors,
        files[0],
        dtype=dtype,
        ignore=("embeddings.position_ids", "text_model.embeddings.position_ids"),
    )
    if len(tokenizer) > config.vocab_size or tokenizer.model_max_length > config.max_position_embeddings:
        raise CorruptFileError(
            "tokenizer does not fit the text encoder",
            path=folder,
            expected=f"at most {config.vocab_size} entries, {config.max_position_embeddings} tokens",
            found=f"{len(tokenizer)} entries, {tokenizer.model_max_length} tokens",
        )
    return tokenizer, model


def _load_tokenizer(layout: ModelLayout, name: str) -> Any:
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    folder = layout.root / name
    if not (folder / "tokenizer.json").is_file():
        for file in ("vocab.json", "merges.txt"):
            if not (folder / file).is_file():
                raise MissingFileError("file is missing", path=folder / file)
    try:
        return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exception for a broken file
        raise CorruptFileError("tokenizer cannot be read", path=folder, found=str(error)) from error
