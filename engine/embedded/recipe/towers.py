"""Build the text and image towers, and prepare what they read."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from engine.embedded.recipe.tokenizer import MAX_TOKENS

TEXT_WIDTH = 128
IMAGE_WIDTH = 160
EMBED_WIDTH = 192
IMAGE_SIZE = 128
# CLIP's own pixel statistics (openai/clip-vit-large-patch14, preprocessor_config.json).
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return an untrained text tower; Stable Diffusion reads its `[B, 77, 128]` hidden states."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=TEXT_WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def build_image_encoder() -> CLIPVisionModelWithProjection:
    """Return an untrained image tower; IP-Adapter reads its `[B, 192]` image embedding."""
    config = CLIPVisionConfig(
        hidden_size=IMAGE_WIDTH,
        intermediate_size=4 * IMAGE_WIDTH,
        num_hidden_layers=4,
        num_attention_heads=5,
        image_size=IMAGE_SIZE,
        patch_size=16,
        projection_dim=EMBED_WIDTH,
    )
    return CLIPVisionModelWithProjection(config)


def normalise(images: NDArray[np.uint8] | Tensor) -> Tensor:
    """Return `[B, H, W, 3]` bytes as the image tower's `[B, 3, H, W]` input."""
    stored = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
    mean, deviation = (torch.tensor(v, device=stored.device)[:, None, None] for v in (PIXEL_MEAN, PIXEL_STD))
    return (stored.permute(0, 3, 1, 2).float() / 255 - mean) / deviation


def augment(pixels: Tensor) -> Tensor:
    """Shift, zoom, fade and grain pictures a little, each in its own way."""
    batch, device = len(pixels), pixels.device
    zoom = 1 + 0.06 * (2 * torch.rand(batch, device=device) - 1)
    shift = 0.04 * (2 * torch.rand(batch, 2, device=device) - 1)
    zero = torch.zeros(batch, device=device)
    theta = torch.stack(
        [torch.stack([zoom, zero, shift[:, 0]], 1), torch.stack([zero, zoom, shift[:, 1]], 1)], 1
    )
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    gain = 1 + 0.1 * (2 * torch.rand(batch, 1, 1, 1, device=device) - 1)
    return moved * gain + 0.06 * torch.rand(batch, 1, 1, 1, device=device) * torch.randn_like(moved)


def tokenise(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Return token numbers `[B, 77]`, padded as Stable Diffusion's pipeline pads."""
    ids: Tensor = tokenizer(
        texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    return ids
