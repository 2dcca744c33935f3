"""Join UNet, adapter and towers into the model that the last stage trains."""

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModel, CLIPVisionModelWithProjection

from engine.embedded.recipe.adapter import AdaptedUnet
from engine.embedded.recipe.batches import Batch
from engine.embedded.recipe.data import IDENTITY_NAMES
from engine.embedded.recipe.heads import Heads, pooled_state


class JointModel(nn.Module):
    """Predict noise from captions and reference pictures; keep the towers honest with their heads.

    The towers go on learning here: after their own short stage they tell hair styles apart in only half of
    the pictures, and what they cannot tell the UNet cannot draw.
    """

    def __init__(
        self,
        adapted: AdaptedUnet,
        text: CLIPTextModel,
        image: CLIPVisionModelWithProjection,
        heads: Heads,
    ) -> None:
        super().__init__()
        self.adapted = adapted
        self.text = text
        self.image = image
        self.heads = heads

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the diffusion loss and the towers' attribute loss.

        Plain attention rather than the fused kernel, whose backward pass on a CPU is slow for short sequences:
        a step takes a fifth less.
        """
        known = len(IDENTITY_NAMES)
        heads = self.heads
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            seen = self.image(batch.pixels)
            embeds = seen.image_embeds
            spoken = self.text(batch.ids)
            states = spoken.last_hidden_state
            predicted = self.adapted(
                batch.sample, batch.timestep, states, embeds * batch.embedded[:, None], batch.referenced
            )
            pooled = pooled_state(self.image, seen.last_hidden_state)
            towers = heads.loss(heads.identity(embeds), batch.seen[:, :known], heads.sizes[:known])
            towers = towers + 0.25 * heads.loss(
                heads.scene(pooled), batch.seen[:, known:], heads.sizes[known:]
            )
            for head, state in zip(
                heads.text, (spoken.pooler_output, states[:, -1], states.mean(1)), strict=True
            ):
                towers = towers + 0.33 * heads.loss(head(state), batch.said, heads.sizes)
        error = (predicted.float() - batch.target).square().mean(dim=(1, 2, 3))
        return (error * batch.weight).mean(), towers

    def tower_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of towers and heads that the loss reaches."""
        contrast = (self.heads.text_contrast, self.heads.image_contrast, self.heads.person_contrast)
        unused = {id(self.heads.scale), *(id(p) for module in contrast for p in module.parameters())}
        modules = (self.text, self.image, self.heads)
        return [p for module in modules for p in module.parameters() if id(p) not in unused]


class Reader(nn.Module):
    """Read the attributes back from pictures, with the image tower and its heads."""

    def __init__(self, image: CLIPVisionModelWithProjection, heads: Heads) -> None:
        super().__init__()
        self.image = image
        self.heads = heads

    def forward(self, pixels: Tensor) -> Tensor:
        """Return value numbers `[B, len(ATTRIBUTES)]` for normalised pictures `[B, 3, 128, 128]`."""
        seen = self.image(pixels)
        pooled = pooled_state(self.image, seen.last_hidden_state)
        logits = torch.cat([self.heads.identity(seen.image_embeds), self.heads.scene(pooled)], dim=-1)
        return torch.stack([part.argmax(-1) for part in logits.split(self.heads.sizes, dim=-1)], dim=-1)
