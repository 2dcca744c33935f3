"""A stream without a device: runs at once, and logs what a device would be asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


class HostStream:
    """``engine.backends.device.stream.Stream`` on the CPU. ``refuse`` makes every capture fail, as CUDA can."""

    handle = 4242

    def __init__(self, *, refuse: bool = False) -> None:
        self.device = torch.device("cpu")
        self.refuse = refuse
        self.calls: list[str] = []
        self.inside = False

    @contextmanager
    def ordered(self) -> Iterator[None]:
        assert not self.inside, "nested"
        self.inside = True
        try:
            yield
        finally:
            self.inside = False

    def capture(self, call: Callable[[], None]) -> Callable[[], None]:
        self.calls.append("capture")
        if self.refuse:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        call()

        def replay() -> None:
            assert self.inside, "replayed outside the stream"
            self.calls.append("replay")
            call()

        return replay

    def synchronize(self) -> None:
        self.calls.append("synchronize")
