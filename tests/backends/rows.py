"""Rows for any backend."""

from __future__ import annotations

import torch

from engine.backends.base import Backend, EncodedPrompt, PlacedReference, RowConditioning


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
