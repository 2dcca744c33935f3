"""What can be wrong with the options of Redis, and its address without secrets."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from server.config.redis_options import RedisOptions

SCHEMES = ("redis", "rediss", "unix")
MIN_SEAL_KEY_BYTES = 16


def redis_problems(options: RedisOptions) -> list[str]:
    """Return what is wrong with the options; none of it repeats a secret."""
    if not options.url:
        return []
    problems = []
    parts = urlsplit(options.url)
    if parts.scheme not in SCHEMES or not (parts.hostname or parts.path):
        problems.append(f"redis.url: is not {', '.join(f'{scheme}://...' for scheme in SCHEMES)}")
    else:
        try:
            _ = parts.port
        except ValueError:
            problems.append("redis.url: its port is no number from 0 to 65535")
    if parts.query:
        problems.append("redis.url: has a query; each setting has an option of its own")
    if options.password and options.password_file:
        problems.append("redis.password: is given beside redis.password_file")
    for name in ("password_file", "ca_file", "seal_key_file"):
        path = getattr(options, name)
        if path and (problem := _unreadable(path)):
            problems.append(f"redis.{name}: {problem}")
    if options.seal_key_file and not problems and len(seal_key(options)) < MIN_SEAL_KEY_BYTES:
        problems.append(f"redis.seal_key_file: holds less than {MIN_SEAL_KEY_BYTES} bytes")
    return problems


def seal_key(options: RedisOptions) -> bytes:
    """Return the key of the entries' seals, without space around it such as a final newline; empty for none."""
    return Path(options.seal_key_file).read_bytes().strip() if options.seal_key_file else b""


def shown_address(options: RedisOptions) -> str:
    """Return the address for the log: no user, no password."""
    parts = urlsplit(options.url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _unreadable(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return "" if file.read(1) else f"{path} is empty"
    except OSError as error:
        return f"{path}: {error.strerror}"
