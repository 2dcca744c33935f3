"""Built engines on the disk: written whole or not at all, and read only if their manifest vouches for them."""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import structlog

from engine.backends.tensorrt.errors import EngineRefusedError, EngineStoreError
from engine.backends.tensorrt.key import EngineKey
from engine.files.lock import LockFileError, file_lock
from engine.files.replacement import leftovers, replacing

log = structlog.get_logger()

FORMAT = 1
MANIFEST = "manifest.json"
TIMINGS = "timing.cache"
CALIBRATION = "calibration.json"
LOCK = "build.lock"

Writer = Callable[[Path, Any], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFile:
    """A serialised engine: its file, its size and SHA-256, and the numbers of the key's profiles that it holds."""

    file: str
    bytes: int
    sha256: str
    profiles: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineManifest:
    """What stands beside an engine. It is written last: plans without it are nothing."""

    format: int
    key: EngineKey
    plans: tuple[PlanFile, ...]
    refittable: bool
    seconds: float

    @property
    def digest(self) -> str:
        """Identity of the plans, for what is measured of them."""
        return hashlib.sha256("".join(plan.sha256 for plan in self.plans).encode()).hexdigest()


class EngineCache:
    """The engines in a folder, one for each place of a key."""

    def __init__(self, root: Path, *, write: Writer | None = None) -> None:
        self.root = root
        self._write = write or _write_plainly

    def folder(self, key: EngineKey) -> Path:
        """Return the folder of a key's engine, made if it is not there. Raises ``EngineStoreError``."""
        folder = self.root / key.place
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EngineStoreError("the folder cannot be made", path=folder, found=str(error)) from error
        return folder

    @contextmanager
    def lock(self, key: EngineKey, *, waiting: Callable[[str], object]) -> Iterator[None]:
        """Hold a key's folder; ``waiting`` is told by which other build it is held. Raises ``EngineStoreError``."""
        path = self.folder(key) / LOCK
        try:
            with file_lock(path, waiting=waiting):
                yield
        except LockFileError as error:
            raise EngineStoreError(
                "the folder cannot be locked", path=path.parent, found=str(error)
            ) from error

    def candidates(self, key: EngineKey) -> list[Path]:
        """Return the folders that may hold an engine for a key: its own, then those built ahead of time."""
        own = self.root / key.place
        ahead = sorted(own.parent.parent.glob(f"sm-*/{own.name}"))
        return [path for path in dict.fromkeys((own, *ahead)) if (path / MANIFEST).exists()]

    def manifest(self, folder: Path) -> EngineManifest:
        """Read a folder's manifest. Raises ``EngineRefusedError``."""
        path = folder / MANIFEST
        try:
            content = msgspec.json.decode(path.read_bytes())
            found = content.get("format") if isinstance(content, dict) else None
            if found != FORMAT:
                raise EngineRefusedError(
                    "manifest has another format", path=path, expected=str(FORMAT), found=repr(found)
                )
            return msgspec.convert(content, EngineManifest)
        except OSError as error:
            raise EngineRefusedError("manifest cannot be read", path=path, found=str(error)) from error
        except msgspec.MsgspecError as error:
            raise EngineRefusedError("not a manifest", path=path, found=str(error)) from error

    def plan(self, folder: Path, plan: PlanFile) -> memoryview:
        """Map a plan into memory, after its size and its SHA-256. Raises ``EngineRefusedError``."""
        path = folder / plan.file
        if Path(plan.file).name != plan.file:
            raise EngineRefusedError(
                "the engine's file lies outside its folder", path=folder / MANIFEST, found=plan.file
            )
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size != plan.bytes:
                    raise EngineRefusedError(
                        "engine is truncated or has grown",
                        path=path,
                        expected=f"{plan.bytes} bytes",
                        found=f"{size} bytes",
                    )
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise EngineRefusedError("engine cannot be read", path=path, found=str(error)) from error
        found = hashlib.sha256(content).hexdigest()
        if found != plan.sha256:
            raise EngineRefusedError(
                "engine is damaged", path=path, expected=f"SHA-256 {plan.sha256}", found=found
            )
        return memoryview(content)

    def store(
        self,
        key: EngineKey,
        plans: list[tuple[tuple[int, ...], Any]],
        *,
        timings: bytes = b"",
        refittable: bool,
        seconds: float,
    ) -> EngineManifest:
        """Write plans, each with the numbers of its profiles, then the manifest; then drop what it replaces.

        Raises ``EngineStoreError``; whatever was there before is then there still.
        """
        folder = self.folder(key)
        self._sweep(folder)
        files: list[PlanFile] = []
        for profiles, plan in plans:
            view = memoryview(plan).cast("B")
            digest = hashlib.sha256(view).hexdigest()
            file = PlanFile(file=f"{digest[:16]}.plan", bytes=view.nbytes, sha256=digest, profiles=profiles)
            self._replace(folder / file.file, view)
            files.append(file)
        manifest = EngineManifest(
            format=FORMAT, key=key, plans=tuple(files), refittable=refittable, seconds=round(seconds, 3)
        )
        if timings:
            self._replace(folder / TIMINGS, timings)
        self._replace(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
        for path in folder.glob("*.plan"):
            if path.name not in {file.file for file in files}:
                path.unlink(missing_ok=True)
        return manifest

    def timings(self, key: EngineKey) -> bytes:
        """Return the timing cache of earlier builds for this key's place, or nothing."""
        try:
            return (self.root / key.place / TIMINGS).read_bytes()
        except OSError:
            return b""

    def _replace(self, path: Path, content: Any) -> None:
        size = memoryview(content).nbytes
        try:
            with replacing(path) as draft:
                self._write(draft, content)
                found = draft.stat().st_size
                if found != size:
                    raise OSError(f"{found} of {size} bytes were written")
        except OSError as error:
            raise EngineStoreError(
                "cannot be written",
                path=path,
                expected=f"{size} bytes of room",
                found=f"{error} ({_room(path.parent)} bytes free)",
            ) from error

    def _sweep(self, folder: Path) -> None:
        """Remove what a build that crashed left; the caller holds the lock, so nobody is writing."""
        for path in leftovers(folder):
            log.info("left over from a build that did not end", file=str(path))
            path.unlink(missing_ok=True)


def _write_plainly(path: Path, content: Any) -> None:
    with path.open("wb") as file:
        file.write(content)


def _room(folder: Path) -> str:
    try:
        return str(shutil.disk_usage(folder).free)
    except OSError:
        return "an unknown number of"
