"""An engine that speaks the protocol and draws plain colours, in the test's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import numpy as np

from engine.protocol.framing import HEADER_BYTES, Frame, decode_payload, encode_frame, parse_header
from engine.protocol.messages import (
    AdapterInfo,
    Cancel,
    EncodeReference,
    Failed,
    FailureReason,
    Finished,
    ImageReady,
    Loading,
    Message,
    ModelInfo,
    PreviewReady,
    Queued,
    Ready,
    ReferenceEncoded,
    SamplerInfo,
    Shutdown,
    Started,
    Step,
    Submit,
    TickReport,
)

SAMPLERS = ("ddim", "euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_karras", "unipc", "lcm")
REFERENCE_SIZE = 32
ADAPTERS = (
    AdapterInfo(name="base", kind="base", tokens=4, weights_hash="ba5e" * 16),
    AdapterInfo(name="plus", kind="plus", tokens=16, weights_hash="b105" * 16),
)


def ready_message(
    *,
    pid: int = 1,
    name: str = "fake",
    max_size: int = 128,
    adapters: tuple[AdapterInfo, ...] = ADAPTERS,
    weights_hash: str = "5eed" * 16,
    reference_layers: tuple[str, ...] = ("all", "style", "layout", "style+layout"),
    reference_regions: bool = True,
) -> Ready:
    return Ready(
        model=ModelInfo(
            name=name,
            family="sd1",
            weights_hash=weights_hash,
            adapters=adapters,
            reference_layers=reference_layers,
            reference_regions=reference_regions,
            max_references=4,
            latent_channels=4,
            latent_scale=8,
            default_height=64,
            default_width=64,
            size_multiple=16,
            min_size=32,
            max_size=max_size,
            prompt_tokens=77,
            reference_size=REFERENCE_SIZE,
            token_width=8,
            preprocessing=f"clip-pil-1 edge={REFERENCE_SIZE} crop={REFERENCE_SIZE} resample=bicubic",
            preprocessor={},
            default_sampler="dpmpp_2m",
            default_steps=4,
            default_guidance_scale=3.0,
        ),
        samplers=tuple(
            SamplerInfo(name=name, min_steps=1, max_steps=50 if name == "lcm" else 200) for name in SAMPLERS
        ),
        buckets=(1, 2, 4),
        tick_seconds={"1": 0.001},
        backend="fake",
        device="none",
        pid=pid,
        load_seconds=0.0,
        warmup_seconds=0.0,
    )


@dataclass
class Script:
    """What the engines do, and what was asked of them; shared by all lives of one launcher."""

    die_on: str = "DIE"
    """A prompt with this word kills the engine once its first step is done."""
    hold_on: str = "HOLD"
    """A prompt with this word stays queued until ``release`` is set."""
    slow_on: str = "SLOW"
    """A prompt with this word takes 20 ms a step."""
    stop_after_images: int | None = None
    """Die after so many images, once."""
    hold_decodes: bool = False
    """Send no image until ``release`` is set."""
    fail_with: FailureReason | None = None
    retry_after: float | None = None
    hold_encodes: bool = False
    loads: bool = True
    exit_status: int = 1
    """Of an engine that doesn't load."""
    ready: Ready = field(default_factory=ready_message)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    submitted: list[Submit] = field(default_factory=list)
    tensors: list[np.ndarray | None] = field(default_factory=list)
    """What came with each of them."""
    cancelled: list[str] = field(default_factory=list)
    encoded: int = 0
    ticks: int = 0
    lives: int = 0
    prompt_dropped: str = ""
    held: set[str] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds; no test sleeps."""
        while not condition():
            await self.changed.wait()


class FakeEngine:
    """One life of it."""

    def __init__(self, script: Script, ours: socket.socket, theirs: socket.socket, pid: int) -> None:
        self.script = script
        self.pid = pid
        self._server_end = theirs
        self._socket = ours
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._others: set[asyncio.Task[None]] = set()
        self._how = "exit status 0"
        self.exit_status: int | None = None
        self._task = asyncio.create_task(self._live())

    @property
    def socket(self) -> socket.socket:
        return self._server_end

    async def wait(self) -> str:
        await asyncio.wait([self._task])
        return self._how

    def kill(self) -> None:
        if not self._task.done():
            self._how = "signal SIGKILL"
            self._task.cancel()

    async def _live(self) -> None:
        self._socket.setblocking(False)
        reader, self._writer = await asyncio.open_unix_connection(sock=self._socket)
        try:
            self.script.lives += 1
            self.script.tell()
            self._send(Loading(phase="loading"))
            if not self.script.loads:
                self.exit_status = self.script.exit_status
                self._how = f"exit status {self.exit_status}"
                return
            self._send(self.script.ready)
            async for frame in frames(reader):
                self._hear(frame)
        finally:
            for task in (*self._jobs.values(), *self._others):
                task.cancel()
            self._writer.transport.abort()
            self.script.tell()

    def _hear(self, frame: Frame) -> None:
        match frame.message:
            case Submit() as submit:
                self.script.submitted.append(submit)
                self.script.tensors.append(frame.tensor)
                task = asyncio.create_task(self._run(submit))
                self._jobs[submit.job_id] = task
                task.add_done_callback(lambda _: self._jobs.pop(submit.job_id, None))
            case Cancel(job_id=job_id):
                self.script.cancelled.append(job_id)
                if job_id in self._jobs:
                    self._jobs.pop(job_id).cancel()
                    self._send(Failed(job_id=job_id, reason=FailureReason.CANCELLED, message="cancelled"))
            case EncodeReference(request_id=request_id, adapter=adapter):
                assert frame.tensor is not None
                tokens = next(each.tokens for each in ADAPTERS if adapter in ("", each.name))
                task = asyncio.create_task(self._encode(request_id, tokens, frame.tensor.mean()))
                self._others.add(task)
                task.add_done_callback(self._others.discard)
            case Shutdown():
                self._task.cancel()
        self.script.tell()

    async def _encode(self, request_id: str, count: int, mean: float) -> None:
        if self.script.hold_encodes:
            await self.script.release.wait()
        self.script.encoded += 1
        tokens = np.full((count, 8), mean, np.float32)
        self._send(ReferenceEncoded(request_id=request_id, seconds=0.001, batch=1), tokens)
        self.script.tell()

    async def _run(self, submit: Submit) -> None:
        script, job_id = self.script, submit.job_id
        self._send(Queued(job_id=job_id, position=0, starts_in=0.0, finishes_in=0.1))
        if script.hold_on in submit.prompt:
            script.held.add(job_id)
            script.tell()
            await script.release.wait()
        if script.fail_with is not None:
            self._send(
                Failed(
                    job_id=job_id,
                    reason=script.fail_with,
                    message="as the script has it",
                    phase="queued",
                    retry_after=script.retry_after,
                    least_seconds=None if script.retry_after is None else 0.1,
                )
            )
            return
        self._send(Started(job_id=job_id, queue_seconds=0.01))
        for step in range(1, submit.steps + 1):
            await asyncio.sleep(0.02 if script.slow_on in submit.prompt else 0)
            self._tick(submit)
            if submit.progress or step == submit.steps:
                self._send(Step(job_id=job_id, step=step, steps=submit.steps))
            if script.die_on in submit.prompt:
                self._how = "signal SIGKILL"
                self._task.cancel()
                return
            if submit.preview_interval and step % submit.preview_interval == 0:
                for index in range(len(submit.seeds)):
                    self._send(
                        PreviewReady(job_id=job_id, index=index, step=step), np.zeros((8, 8, 3), np.uint8)
                    )
        for index, seed in enumerate(submit.seeds):
            pixels = np.full((submit.height, submit.width, 3), seed % 256, np.uint8)
            if script.hold_decodes:
                await script.release.wait()
            self._send(ImageReady(job_id=job_id, index=index, seed=seed), pixels)
            if script.stop_after_images == index + 1:
                script.stop_after_images = None
                await self._writer.drain()
                self._task.cancel()
                return
        self._send(
            Finished(
                job_id=job_id,
                queue_seconds=0.01,
                encode_prompt_seconds=0.002,
                denoise_seconds=0.03,
                decode_seconds=0.004,
                mean_batch_rows=2.0,
                prompt_dropped=script.prompt_dropped,
                negative_prompt_dropped="",
            )
        )

    def _tick(self, submit: Submit) -> None:
        self.script.ticks += 1
        self._send(
            TickReport(
                bucket=2,
                useful_rows=2,
                seconds=0.001,
                waiting=0,
                running=1,
                oldest_wait_seconds=0.0,
                busy_seconds=0.1,
                encoded_references=self.script.encoded,
                resident_bytes=1,
                cpu_seconds=0.1,
                jobs=(submit.job_id,),
            )
        )

    def _send(self, message: Message, tensor: np.ndarray | None = None) -> None:
        if not self._writer.is_closing():
            self._writer.writelines(encode_frame(message, tensor))


class FakeLauncher:
    """Starts fake engines."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.engines: list[FakeEngine] = []

    async def launch(self) -> FakeEngine:
        ours, theirs = socket.socketpair()
        engine = FakeEngine(self.script, ours, theirs, pid=len(self.engines) + 1)
        self.engines.append(engine)
        return engine


async def frames(reader: asyncio.StreamReader) -> AsyncIterator[Frame]:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            lengths = parse_header(await reader.readexactly(HEADER_BYTES))
            yield decode_payload(lengths, await reader.readexactly(lengths.payload))


async def serve_socket(number: int) -> None:
    """Be the engine of a server in another process."""
    ours = socket.socket(fileno=number)
    _, theirs = socket.socketpair()
    engine = FakeEngine(Script(ready=ready_message(pid=os.getpid())), ours, theirs, pid=os.getpid())
    await engine.wait()


if __name__ == "__main__":
    asyncio.run(serve_socket(int(sys.argv[sys.argv.index("--socket-fd") + 1])))
