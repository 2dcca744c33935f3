"""What is read off an engine's ``Ready``."""

from __future__ import annotations

import msgspec

from engine.protocol.messages import ModelInfo, Ready
from server.references.encoder import EncoderFacts


def named(ready: Ready, name: str) -> Ready:
    """Return it with the model called by another name than its own."""
    return msgspec.structs.replace(ready, model=msgspec.structs.replace(ready.model, name=name))


def encoder_facts(model: ModelInfo, adapter: str) -> EncoderFacts | None:
    """Return what decides a picture's tokens; None for an adapter that the model has not. '' is its default."""
    chosen = next((each for each in model.adapters if adapter in ("", each.name)), None)
    if chosen is None:
        return None
    return EncoderFacts(
        model=model.name,
        adapter=chosen.name,
        preprocessing=model.preprocessing,
        weights_hash=chosen.weights_hash,
        tokens=chosen.tokens,
        width=model.token_width,
    )
