"""The adapters of a model directory, each with the image encoder whose features it takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from engine.models.adapter import AdapterKind, ImageAdapter, load_adapter
from engine.models.errors import UnsupportedModelError
from engine.models.image_encoder import ImageEncoder, check_adapter, load_image_encoder
from engine.models.layout import ModelLayout
from engine.models.projection import KVProjector
from engine.models.unet import ConditionedUNet
from engine.models.weights import hash_files


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedAdapter:
    """An adapter that references can be encoded for. Adapters may share an image encoder."""

    adapter: ImageAdapter
    encoder: ImageEncoder
    unconditional_tokens: torch.Tensor
    """``[tokens, E]`` f32: the reference tokens of the unconditional row of a request with a reference."""
    weights_hash: str
    """SHA-256 of all files that its tokens depend on: its own, the image encoder's and its preprocessing."""

    @property
    def name(self) -> str:
        """The stem of its file."""
        return self.adapter.name

    @property
    def kind(self) -> AdapterKind:
        """Which projection it has."""
        return self.adapter.kind

    @property
    def kv(self) -> KVProjector:
        """The projector of tokens to K/V."""
        return self.adapter.kv

    @property
    def tokens(self) -> int:
        """Tokens of one reference."""
        return int(self.unconditional_tokens.shape[0])

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode ``[N, S, S, 3]`` uint8 RGB to tokens ``[N, tokens, E]`` f32."""
        return self.encoder.encode(pixels, self.adapter)


def load_adapters(
    layout: ModelLayout, unet: ConditionedUNet, default: str | None, *, token_width: int, dtype: torch.dtype
) -> dict[str, LoadedAdapter]:
    """Load every adapter of the directory, the default one first; none if there is no default.

    A reference is prepared once, before an adapter is chosen, so all must want the same preprocessing. Raises the
    ``ModelError`` family.
    """
    if default is None:
        return {}
    paths = layout.adapters()
    loaded: dict[str, LoadedAdapter] = {}
    encoders: dict[str, ImageEncoder] = {}
    digests: dict[Path, str] = {}
    for name in (default, *(other for other in paths if other != default)):
        folder = layout.image_encoder_of(name)
        adapter = load_adapter(paths[name], unet, token_width=token_width, dtype=dtype)
        if folder not in encoders:
            encoders[folder] = load_image_encoder(layout, folder, dtype=dtype)
        encoder = encoders[folder]
        check_adapter(encoder, adapter)
        loaded[name] = LoadedAdapter(
            adapter=adapter,
            encoder=encoder,
            unconditional_tokens=encoder.unconditional(adapter),
            weights_hash=hash_files(layout.root, (paths[name], *encoder.files), digests),
        )
        wanted = loaded[default].encoder.preprocessing
        if encoder.preprocessing != wanted:
            raise UnsupportedModelError(
                "image encoder prepares references differently from the default adapter's",
                path=layout.root / folder,
                expected=wanted.version,
                found=encoder.preprocessing.version,
            )
    return loaded
