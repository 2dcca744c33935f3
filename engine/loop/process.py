"""The engine process: its threads, its life and its end."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from enum import IntEnum

import structlog
import torch

from engine.backends.base import Backend, BackendStartError
from engine.backends.registry import create_backend
from engine.config import ConfigError, EngineConfig, default_cache_dir
from engine.models.errors import ModelError
from engine.protocol.channel import read_frame
from engine.protocol.framing import ProtocolError
from engine.protocol.messages import Loading, Ready
from engine.samplers import NoiseSchedule, UnsupportedScheduleError

from .announcement import model_info, sampler_infos
from .calibrations import calibrate_or_recall
from .errors import EngineError
from .loop import EngineLoop
from .mailbox import Mailbox
from .outbox import Outbox
from .trimming import give_back

log = structlog.get_logger()

ORPHAN_SECONDS = 2.0
"""How long the loop may take to notice that the server is gone. Nobody waits for its results any more."""

FLUSH_SECONDS = 5.0


class Exit(IntEnum):
    """Exit statuses. After ``CANNOT_START`` another start would end the same way."""

    DONE = 0
    BROKEN = 1
    CANNOT_START = 2


def serve_process(config: EngineConfig, connection: socket.socket) -> Exit:
    """Be an engine process: ``serve``, and end with the server even in the middle of a tick.

    SIGINT and SIGTERM reach a whole process group or container; the server decides when its engine ends, so
    they are ignored here.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return serve(config, connection, end_now=os._exit)


def serve(
    config: EngineConfig, connection: socket.socket, *, end_now: Callable[[int], object] | None = None
) -> Exit:
    """Serve one server over a connected stream socket until it says ``Shutdown`` or closes; any thread may.

    ``end_now`` is called with an exit status when the server is gone and the loop stays busy.
    """
    mailbox = Mailbox()
    outbox = Outbox(connection.sendall)
    outbox.start()
    ended = threading.Event()
    reader = threading.Thread(
        target=_read, args=(connection, mailbox, ended, end_now), name="reader", daemon=True
    )
    reader.start()
    try:
        loop = _start(config, mailbox, outbox)
        loop.run()
    except (ConfigError, ModelError, BackendStartError, UnsupportedScheduleError) as error:
        log.critical("cannot start", error=f"{type(error).__name__}: {error}")
        return Exit.CANNOT_START
    except (EngineError, ProtocolError) as error:
        log.critical("engine ends", error=f"{type(error).__name__}: {error}")
        return Exit.BROKEN
    except Exception as error:
        log.critical("engine ends on a bug", error=f"{type(error).__name__}: {error}", exc_info=True)
        return Exit.BROKEN
    else:
        return Exit.DONE
    finally:
        ended.set()
        outbox.close(FLUSH_SECONDS)


def _start(config: EngineConfig, mailbox: Mailbox, outbox: Outbox) -> EngineLoop:
    """Load, warm up, and tell the server."""
    began = time.monotonic()
    outbox.send(Loading(phase="loading"))
    backend = load_backend(config)
    give_back()
    loaded = time.monotonic()
    facts = backend.facts
    scale = facts.latent_scale
    shape = (facts.latent_channels, facts.default_height // scale, facts.default_width // scale)
    buckets = config.buckets_of(backend.buckets(shape))
    # What cannot work is told before warm-up, which takes minutes for a large model.
    config.deterministic_bucket_of(buckets)
    schedule = NoiseSchedule.from_config(facts.scheduler_config)
    outbox.send(Loading(phase="warming"))
    calibration = calibrate_or_recall(
        backend,
        buckets,
        time.monotonic,
        decode_batch=config.decode_batch,
        patience_ticks=config.decode_patience_ticks,
        reference_batch=config.reference_batch,
    )
    give_back()
    loop = EngineLoop(
        backend=backend,
        buckets=buckets,
        calibration=calibration,
        config=config,
        inbox=mailbox,
        emit=outbox.send,
        clock=time.monotonic,
    )
    ready = Ready(
        model=model_info(facts),
        samplers=sampler_infos(schedule),
        buckets=buckets,
        tick_seconds={str(bucket): seconds for bucket, seconds in calibration.tick_seconds.items()},
        backend=config.chosen_backend,
        device=config.device,
        pid=os.getpid(),
        load_seconds=loaded - began,
        warmup_seconds=time.monotonic() - loaded,
    )
    outbox.send(ready)
    log.info(
        "ready",
        model=facts.name,
        load_seconds=round(ready.load_seconds, 3),
        warmup_seconds=round(ready.warmup_seconds, 3),
        tick_seconds={bucket: round(seconds, 4) for bucket, seconds in calibration.tick_seconds.items()},
        decode_seconds={batch: round(seconds, 4) for batch, seconds in calibration.decode_seconds.items()},
        decode_batch=calibration.decode_plan.batch,
    )
    return loop


def load_backend(config: EngineConfig) -> Backend:
    """Load the configured model, and give torch its threads of this process.

    Raises ``ConfigError``, ``ModelError`` and ``BackendStartError``.
    """
    if config.torch_threads is not None:
        torch.set_num_threads(config.torch_threads)
    model = config.model
    if model is None:
        from engine.embedded import model_directory

        model = model_directory()
    backend = create_backend(
        config.chosen_backend,
        model,
        adapter=config.adapter,
        dtype=config.dtype,
        device=config.device,
        threads=config.threads,
        lanes=config.lanes,
        buckets=config.buckets,
        cache=config.cache_dir or default_cache_dir(),
        loras=config.loras,
    )
    if backend.device.type != config.device.partition(":")[0]:
        raise ConfigError(
            "device", config.device, f"backend {config.chosen_backend} runs on {backend.device}"
        )
    return backend


def _read(
    connection: socket.socket,
    mailbox: Mailbox,
    ended: threading.Event,
    end_now: Callable[[int], object] | None,
) -> None:
    """Move messages from the socket to the mailbox; at its end, end the process even if the loop cannot.

    However it ends, the mailbox is closed: a loop without a reader would wait for ever.
    """
    status: Exit = Exit.DONE
    fault: Exception | None = None
    try:
        while frame := read_frame(connection):
            mailbox.put(frame, time.monotonic())
        log.info("the server closed the connection")
    except OSError as error:
        log.info("the server is gone", error=str(error))
    except Exception as error:
        status, fault = Exit.BROKEN, error
    finally:
        mailbox.close(fault)
    if end_now is not None and not ended.wait(ORPHAN_SECONDS):
        log.warning("the loop is busy, ending anyway")
        end_now(status)
