"""What the library needs of the engine: an image encoder. The engine link implements it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderFacts:
    """What decides a picture's tokens beside its pixels (``ModelInfo.preprocessing``, ``AdapterInfo.weights_hash``).

    ``tokens`` and ``width`` are the shape that the encoder answers with for this adapter of this model.
    """

    model: str
    adapter: str
    preprocessing: str
    weights_hash: str
    tokens: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedReference:
    """The encoder's answer: ``tokens`` ``[T, W]`` f32, ``seconds`` in the engine, pictures in that batch."""

    tokens: NDArray[np.float32]
    seconds: float
    batch: int = 1


class ReferenceEncoder(Protocol):
    """Encodes preprocessed pictures. Concurrent calls are wanted: the engine batches them."""

    def facts(self, adapter: str = "", *, model: str = "") -> EncoderFacts:
        """Return the facts of an adapter of a model; '' is the default of each.

        Raises the link's own error while the model has no engine, and when it has no such adapter.
        """
        ...

    async def encode(
        self, pixels: NDArray[np.uint8], adapter: str = "", *, model: str = ""
    ) -> EncodedReference:
        """Encode ``pixels`` ``[S, S, 3]`` u8 RGB with an adapter of a model.

        Raises ``ReferenceEncodingFailed`` or the link's own errors.
        """
        ...
