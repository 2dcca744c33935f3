"""Prompts: encoded in batches, kept in a byte-bounded cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from engine.backends.base import Backend, EncodedPrompt
from engine.protocol.messages import FailureReason

from .errors import Fault
from .guard import all_finite, singled_out

MAX_BATCH = 16
"""Texts in one call of the text encoder; it bounds how long a tick waits for newcomers."""


class PromptKey(NamedTuple):
    """A text, and whether it must be encoded by itself.

    The text encoder's last bits depend on the batch that it runs; `solo` texts always run in a batch of one.
    """

    text: str
    solo: bool


class PromptCache:
    """The least recently used embeddings go first once `limit` bytes are exceeded."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[PromptKey, EncodedPrompt] = OrderedDict()
        self.bytes = 0

    def get(self, key: PromptKey) -> EncodedPrompt | None:
        """Return an entry; one that was encoded by itself serves everybody."""
        for candidate in (key, key._replace(solo=True)):
            if candidate in self._entries:
                self._entries.move_to_end(candidate)
                return self._entries[candidate]
        return None

    def put(self, key: PromptKey, prompt: EncodedPrompt) -> None:
        """Keep an entry if it fits."""
        size = _size(key, prompt)
        if size > self._limit or key in self._entries:
            return
        self._entries[key] = prompt
        self.bytes += size
        while self.bytes > self._limit:
            self.bytes -= _size(*self._entries.popitem(last=False))


class PromptDesk:
    """Encode what the cache lacks."""

    def __init__(self, backend: Backend, cache: PromptCache, works: Callable[[], bool]) -> None:
        self._backend = backend
        self._cache = cache
        self._works = works

    def encode(self, keys: Iterable[PromptKey]) -> dict[PromptKey, EncodedPrompt | Fault]:
        """Return each prompt, or why it could not be encoded. Raises ``BackendBrokenError``."""
        results: dict[PromptKey, EncodedPrompt | Fault] = {}
        missing: list[PromptKey] = []
        for key in dict.fromkeys(keys):
            cached = self._cache.get(key)
            if cached is None:
                missing.append(key)
            else:
                results[key] = cached
        for batch in _batches(missing):
            prompts = singled_out([key.text for key in batch], self._run, self._works)
            for key, prompt in zip(batch, prompts, strict=True):
                results[key] = prompt
                if isinstance(prompt, EncodedPrompt):
                    self._cache.put(key, prompt)
        return results

    def _run(self, texts: Sequence[str]) -> list[EncodedPrompt | Fault]:
        prompts = self._backend.encode_prompts(texts)
        return [_checked(prompt) for prompt in prompts]


def _batches(keys: Sequence[PromptKey]) -> list[list[PromptKey]]:
    shared = [key for key in keys if not key.solo]
    alone = [[key] for key in keys if key.solo]
    return [shared[at : at + MAX_BATCH] for at in range(0, len(shared), MAX_BATCH)] + alone


def _checked(prompt: EncodedPrompt) -> EncodedPrompt | Fault:
    parts = [part for part in (prompt.embedding, prompt.pooled) if part is not None]
    if not all(all_finite(part.unsqueeze(0)).item() for part in parts):
        return Fault(
            reason=FailureReason.NUMERICAL, message="the text encoder gave values that are not finite"
        )
    # The encoder returns views of its batch, which would keep the whole batch in memory.
    pooled = None if prompt.pooled is None else prompt.pooled.clone()
    return replace(prompt, embedding=prompt.embedding.clone(), pooled=pooled)


def _size(key: PromptKey, prompt: EncodedPrompt) -> int:
    pooled = 0 if prompt.pooled is None else prompt.pooled.nbytes
    return prompt.embedding.nbytes + pooled + len(key.text.encode()) + len(prompt.dropped.encode())
