"""The engines of all models, each found by its model's name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from engine.protocol.framing import Tensor
from server.engine_link.link import EngineLink
from server.errors import ModelUnknownError
from server.references.encoder import EncodedReference, EncoderFacts


class Engines:
    """One link a model, the default model's first; also the encoder that the reference library asks."""

    def __init__(self, links: Sequence[EngineLink]) -> None:
        self._links = tuple(links)

    def __iter__(self) -> Iterator[EngineLink]:
        return iter(self._links)

    @property
    def default(self) -> EngineLink:
        """The engines of requests that name no model."""
        return self._links[0]

    @property
    def are_ready(self) -> bool:
        """Whether every model can be asked for now."""
        return all(link.is_ready for link in self._links)

    @property
    def ambiguous_name(self) -> str:
        """The default model's name if another has it too: its own is known only once its engine is ready."""
        taken = any(link.name == self.default.name for link in self._links[1:])
        return self.default.name if taken else ""

    def find(self, model: str, *, field: str = "portrait.model") -> EngineLink:
        """Return the engines of a model; '' is the default.

        Raises ``ModelUnknownError`` about ``field``, and ``EngineUnavailableError`` while not all names are known.
        """
        for link in self._links:
            if model in ("", link.name):
                return link
        self.default.last_ready()
        raise ModelUnknownError(model, [link.name for link in self._links], field=field)

    def start(self) -> None:
        """Start them all."""
        for link in self._links:
            link.start()

    async def stop(self, *, at_once: bool = False) -> None:
        """Shut them all down; what is in flight fails."""
        await asyncio.gather(*(link.stop(at_once=at_once) for link in self._links))

    async def wait_until_hopeless(self) -> None:
        """Wait until one of them will never be ready."""
        waiting = [asyncio.create_task(link.cannot_start.wait()) for link in self._links]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    # --- ReferenceEncoder -------------------------------------------------------------------------------------------

    def facts(self, adapter: str = "", *, model: str = "") -> EncoderFacts:
        """Return what decides a picture's tokens (``EngineLink.facts``)."""
        return self.find(model).facts(adapter)

    async def encode(self, pixels: Tensor, adapter: str = "", *, model: str = "") -> EncodedReference:
        """Encode a picture (``EngineLink.encode``)."""
        return await self.find(model).encode(pixels, adapter)
