"""Reference pictures to the image features that adapters project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from engine.models.adapter import ImageAdapter
from engine.models.errors import TensorShapeError, UnsupportedModelError
from engine.models.layout import ModelLayout, read_json
from engine.models.preprocess import ReferencePreprocessing
from engine.models.weights import build_module, read_tensors

PREPROCESSOR = "preprocessor_config.json"
# transformers.image_utils OPENAI_CLIP_MEAN and _STD: what a preprocessor_config.json without them means.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ImageEncoder:
    """CLIP's vision model. Source: diffusers ``StableDiffusionPipeline.encode_image``."""

    def __init__(
        self,
        model: Any,
        preprocessing: ReferencePreprocessing,
        config: Mapping[str, Any],
        files: Sequence[Path] = (),
    ) -> None:
        self.model = model
        self.preprocessing = preprocessing
        self.files = tuple(files)
        """What it was read from."""
        self.mean = torch.tensor(config.get("image_mean", CLIP_MEAN), dtype=torch.float32)
        self.std = torch.tensor(config.get("image_std", CLIP_STD), dtype=torch.float32)

    def encode(self, pixels: torch.Tensor, adapter: ImageAdapter) -> torch.Tensor:
        """Encode ``[N, S, S, 3]`` uint8 RGB to the adapter's tokens ``[N, tokens, E]`` f32."""
        return self._project(normalise(pixels, self.preprocessing.size, self.mean, self.std), adapter)

    def unconditional(self, adapter: ImageAdapter) -> torch.Tensor:
        """Return the tokens ``[tokens, E]`` f32 of the unconditional row under guidance.

        As diffusers has it: a base adapter projects a zero embedding, the others the features of a zero image.
        """
        if not adapter.takes_hidden_states:
            like = next(adapter.projection.parameters())
            nothing = torch.zeros(1, self.width(adapter), dtype=like.dtype, device=like.device)
            with torch.inference_mode():
                tokens: torch.Tensor = adapter.projection(nothing)
            return tokens[0].float()
        size = self.preprocessing.size
        return self._project(torch.zeros(1, 3, size, size), adapter)[0]

    def width(self, adapter: ImageAdapter) -> int:
        """Width of the features that this adapter takes from the encoder."""
        config = self.model.config
        return int(config.hidden_size if adapter.takes_hidden_states else config.projection_dim)

    def _project(self, images: torch.Tensor, adapter: ImageAdapter) -> torch.Tensor:
        with torch.inference_mode():
            images = images.to(self.model.device, self.model.dtype)
            if adapter.takes_hidden_states:
                features = self.model(images, output_hidden_states=True).hidden_states[-2]
            else:
                features = self.model(images).image_embeds
            tokens: torch.Tensor = adapter.projection(features)
        return tokens.float()


def normalise(pixels: torch.Tensor, size: int, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Map ``[N, size, size, 3]`` uint8 RGB to ``[N, 3, size, size]`` f32. Raises ``ValueError`` for anything else."""
    if pixels.dtype != torch.uint8 or pixels.shape[1:] != (size, size, 3):
        raise ValueError(
            f"pixels must be uint8 [N, {size}, {size}, 3], not {pixels.dtype} {list(pixels.shape)}"
        )
    # In double and then single precision, as transformers' rescale and normalize go.
    normal = ((pixels.double() * (1 / 255)).float() - mean) / std
    return normal.permute(0, 3, 1, 2).contiguous()


def load_image_encoder(
    layout: ModelLayout, folder: str = "image_encoder", *, dtype: torch.dtype
) -> ImageEncoder:
    """Load an image encoder's folder and its preprocessing. Raises the ``ModelError`` family.

    The preprocessing is ``preprocessor_config.json`` in the folder, or in ``feature_extractor/`` where
    ``model_index.json`` names one, or else CLIP's at the encoder's size, as diffusers ``load_ip_adapter`` makes it.
    """
    from transformers.models.clip.configuration_clip import CLIPVisionConfig
    from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection

    config = CLIPVisionConfig(**layout.config(folder))
    files = [layout.root / folder / "config.json"]
    path = layout.root / folder / PREPROCESSOR
    if not path.is_file():
        path = layout.root / "feature_extractor" / PREPROCESSOR
    settings: dict[str, Any] = {
        "size": {"shortest_edge": config.image_size},
        "crop_size": {"height": config.image_size, "width": config.image_size},
    }
    if path.is_file() or layout.names("feature_extractor"):
        settings = read_json(path)
        files.append(path)
    try:
        preprocessing = ReferencePreprocessing.from_config(settings)
    except ValueError as error:
        raise UnsupportedModelError(f"preprocessing is not supported: {error}", path=path) from error
    if config.image_size != preprocessing.size:
        raise UnsupportedModelError(
            "crop is not the size that the image encoder takes",
            path=path,
            expected=str(config.image_size),
            found=str(preprocessing.size),
        )
    weights = layout.weights(folder, "model")
    model = build_module(
        lambda: CLIPVisionModelWithProjection(config),
        read_tensors(weights),
        weights[0],
        dtype=dtype,
        ignore=("vision_model.embeddings.position_ids",),
    )
    return ImageEncoder(model, preprocessing, settings, [*files, *weights])


def check_adapter(encoder: ImageEncoder, adapter: ImageAdapter) -> None:
    """Raise ``TensorShapeError`` if the adapter was trained on another image encoder's features."""
    first = {"base": "image_embeds", "plus": "proj_in", "full": "ff.net.0.proj"}[adapter.kind]
    layer: Any = adapter.projection.get_submodule(first)
    if layer.in_features != encoder.width(adapter):
        raise TensorShapeError(
            "adapter takes features of another image encoder",
            path=adapter.path,
            tensor="image_proj.*",
            expected=f"features of width {encoder.width(adapter)}",
            found=str(layer.in_features),
        )
