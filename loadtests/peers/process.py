"""A peer's server in a process tree of its own: started, watched, measured, and stopped to the last child."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from loadtests.peers.errors import PeerError

STOP_SECONDS = 20.0
SAMPLE_SECONDS = 0.5
SETTLE_SECONDS = 1.0
PAUSE_SECONDS = 5.0
POLL_SECONDS = 0.01


def free_port() -> int:
    """Return a loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and all that it has started, those that are left."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def pause(name: str, pid: int) -> None:
    """Stop a process tree where it stands (SIGSTOP): it takes no time from the processor until ``resume``.

    A server that waits for work may look for it often: LitServe's processes take 15 to 50% of a core. Raises
    ``PeerError`` for one that cannot be stopped.
    """
    end = time.monotonic() + PAUSE_SECONDS
    # Looked at again: a signal takes a moment, and who still runs may start another.
    while members := [member for member in tree(pid) if not _rests(member)]:
        if time.monotonic() > end:
            raise PeerError(name, f"did not pause within {PAUSE_SECONDS:.0f} s", str(members))
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.suspend()
        time.sleep(POLL_SECONDS)


def _rests(process: psutil.Process) -> bool:
    try:
        return process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def resume(pid: int) -> None:
    """Let a process tree go on, children first: a parent that watches them finds them alive."""
    for member in reversed(tree(pid)):
        with contextlib.suppress(psutil.NoSuchProcess):
            member.resume()


@contextlib.contextmanager
def awake(name: str, pid: int) -> Iterator[None]:
    """Let a paused process tree run while this is entered, from a moment before: what was due meanwhile comes first."""
    resume(pid)
    time.sleep(SETTLE_SECONDS)
    try:
        yield
    finally:
        pause(name, pid)


def proportional_bytes(pid: int) -> int:
    """Return the memory of a process tree, pages that it shares counted once (PSS, `man 5 proc_pid_smaps`)."""
    total = 0
    for process in tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


class MemoryPeak:
    """The largest memory of a process tree while this is entered, sampled twice a second."""

    def __init__(self, pid: int) -> None:
        self.bytes = proportional_bytes(pid)
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryPeak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.bytes = max(self.bytes, proportional_bytes(self._pid))

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            self.bytes = max(self.bytes, proportional_bytes(self._pid))


@contextlib.contextmanager
def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command, its output in `log`; in the end stop it and every process that it started."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, stdout=sink, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )
    try:
        yield process
    finally:
        # Children are listed before their parent goes: they are nobody's afterwards, and would keep the port.
        family = tree(process.pid)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_SECONDS)
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.terminate()
        _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
        for member in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()
