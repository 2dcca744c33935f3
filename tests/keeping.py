"""What is costly to make, and is kept for the rest of the module that asked for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

from engine.loop.trimming import give_back

F = TypeVar("F", bound=Callable[..., Any])

_kept: list[Any] = []


def kept(make: F) -> F:
    """Return a function that makes each thing once a module. Models lie in folders of a module, so no other asks."""
    remembering = cache(make)
    _kept.append(remembering)
    return cast(F, remembering)


def forget() -> None:
    """Let go of everything, and give its memory back: compiled models of all modules together took gigabytes."""
    if any(remembering.cache_info().currsize for remembering in _kept):
        for remembering in _kept:
            remembering.cache_clear()
        give_back()
