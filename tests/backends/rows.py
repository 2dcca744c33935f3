"""Rows for any backend, and ticks of them."""

from __future__ import annotations

import torch

from engine.backends.base import Backend, EncodedPrompt, PlacedReference, RowConditioning
from engine.backends.torch_backend import TorchSettings

TORCH_SETTINGS = TorchSettings(buckets=(1, 2, 3, 4, 6, 8), capacity=10)
COUNTS = (1, 1, 0, 1, 3, 0, 1, 2, 4)
PROMPTS = ("a portrait of a woman", "a man smiling", "", "a red hat")


def row_of(
    backend: Backend,
    prompt: EncodedPrompt,
    *references: torch.Tensor,
    scale: float = 1.0,
    adapter: str = "",
) -> RowConditioning:
    """Return a row with these references' tokens at one scale; adapter '' is the default one."""
    name, layers = backend.facts.adapter(adapter).name if references else "", backend.facts.layers
    return RowConditioning(
        prompt=prompt,
        references=tuple(
            PlacedReference(adapter=name, tokens=tokens, scales=(scale,) * layers) for tokens in references
        ),
    )


def conditioning(backend: Backend, index: int) -> RowConditioning:
    """Return one of many different rows: without a reference, with one, with two to four."""
    generator = torch.Generator().manual_seed(index)
    shape = (COUNTS[index % len(COUNTS)], backend.facts.reference_tokens, backend.facts.token_width)
    (prompt,) = backend.encode_prompts([PROMPTS[index % len(PROMPTS)]])
    scale = (1.0, 0.3, 0.0, 1.5)[index % 4]
    return row_of(backend, prompt, *torch.randn(shape, generator=generator), scale=scale)


def inputs(rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 4, 8, 8, generator=generator), torch.linspace(1, 999, rows)
