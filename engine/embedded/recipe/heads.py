"""Read attributes off the towers' outputs during training; nothing of this is exported."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.embedded.recipe.data import ATTRIBUTES, IDENTITY_NAMES
from engine.embedded.recipe.towers import EMBED_WIDTH, IMAGE_WIDTH, TEXT_WIDTH


class Heads(nn.Module):
    """Hold the training-only heads: attribute readers, and the projections that the contrast is taken in."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {name: len(values) for name, values in ATTRIBUTES.items()}
        self.sizes = list(sizes.values())
        self.identity = nn.Linear(EMBED_WIDTH, sum(self.sizes[: len(IDENTITY_NAMES)]))
        self.scene = nn.Linear(IMAGE_WIDTH, sum(self.sizes[len(IDENTITY_NAMES) :]))
        self.text = nn.ModuleList([nn.Linear(TEXT_WIDTH, sum(self.sizes)) for _ in range(3)])
        self.text_contrast = nn.Linear(TEXT_WIDTH, 128)
        self.image_contrast = nn.Linear(IMAGE_WIDTH, 128)
        self.person_contrast = nn.Linear(EMBED_WIDTH, 128)
        self.scale = nn.Parameter(torch.tensor(2.3))

    def loss(self, logits: Tensor, labels: Tensor, sizes: list[int]) -> Tensor:
        """Return the mean cross-entropy over the attributes that `sizes` splits the logits into.

        A label of -100 counts for nothing.
        """
        parts = zip(logits.float().split(sizes, dim=-1), labels.T, strict=True)
        total = torch.stack([F.cross_entropy(part, label, reduction="sum") for part, label in parts]).sum()
        return total / (labels >= 0).sum().clamp(min=1)

    def contrast(self, a: Tensor, b: Tensor) -> Tensor:
        """Return CLIP's symmetric loss between matching rows (arXiv 2103.00020)."""
        scale = self.scale.clamp(max=4.0).exp()
        logits = scale * F.normalize(a.float(), dim=-1) @ F.normalize(b.float(), dim=-1).T
        target = torch.arange(len(a), device=a.device)
        return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def pooled_state(image: nn.Module, hidden: Tensor) -> Tensor:
    """Return the image tower's pooled state `[B, 128]`, which its projection turns into the embedding."""
    norm = image.get_submodule("vision_model.post_layernorm")
    pooled: Tensor = norm(hidden[:, 0])
    return pooled
