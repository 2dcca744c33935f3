"""A CUDA stream of a backend's own, and calls on it that are captured once and replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import structlog
import torch

log = structlog.get_logger()

WARM_CALLS = 3
"""Calls before the capture: libraries choose kernels, allocate workspaces and compile in the first ones."""


class Stream(Protocol):
    """What a backend needs of a stream; tests bring one without a device."""

    device: torch.device

    @property
    def handle(self) -> int:
        """The driver's handle, ``cudaStream_t`` as an integer."""

    def ordered(self) -> AbstractContextManager[None]:
        """Enter the stream: after what torch's current stream was given before, and before what it gets next."""

    def capture(self, call: Callable[[], None]) -> Callable[[], None]:
        """Record what a call enqueues as a CUDA graph and return its replay. Raises ``RuntimeError``."""

    def synchronize(self) -> None:
        """Wait until the stream has run everything."""


class CudaStream:
    """``Stream`` on a CUDA device. Graphs share one memory pool: they never run at once."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    @property
    def handle(self) -> int:
        """The driver's handle."""
        return int(self._stream.cuda_stream)

    @contextmanager
    def ordered(self) -> Iterator[None]:
        """Run the body on the stream, after and before torch's current one; the host waits for nothing."""
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            yield
        current.wait_stream(self._stream)

    def capture(self, call: Callable[[], None]) -> Callable[[], None]:
        """Record a call as a CUDA graph and return its replay."""
        graph = torch.cuda.CUDAGraph()
        # Another thread may copy a sampler's table meanwhile, which is none of this graph's business.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            call()
        return graph.replay

    def synchronize(self) -> None:
        """Wait for the stream."""
        self._stream.synchronize()


class CapturedCall:
    """A call over tensors that never move: run a few times, then captured, then replayed.

    Where the capture fails the call itself is made every time, and the log says why: slower, never wrong.
    """

    def __init__(self, call: Callable[[], None], stream: Stream, *, name: str, graphs: bool = True) -> None:
        self._call = call
        self._stream = stream
        self.name = name
        self._graphs = graphs
        self._run: Callable[[], None] | None = None
        self.captured = False
        self.reason: str | None = None
        """Why there is no graph, where there is none."""

    def __call__(self) -> None:
        """Run once, ordered with torch's current stream."""
        if self._run is None:
            self._prepare()
        assert self._run is not None
        with self._stream.ordered():
            self._run()

    def _prepare(self) -> None:
        with self._stream.ordered():
            for _ in range(WARM_CALLS):
                self._call()
        self._stream.synchronize()
        self._run = self._call
        if not self._graphs:
            self.reason = "not asked for"
            return
        try:
            self._run = self._stream.capture(self._call)
        except Exception as error:
            # torch raises RuntimeError or AcceleratorError, and the captured call may raise something of its own.
            self.reason = f"{type(error).__name__}: {error}"
            log.warning("no CUDA graph, calls are enqueued one by one", call=self.name, reason=self.reason)
        else:
            self.captured = True
