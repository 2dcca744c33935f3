"""What can be wrong with the options of Redis, and its address without secrets."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from server.config.files import FileProblem, read_certificates_file, read_file
from server.config.redis_options import RedisOptions

SCHEMES = ("redis", "rediss", "unix")
MIN_SEAL_KEY_BYTES = 16
_DATABASE = re.compile(r"(/\d*)?")


def redis_problems(options: RedisOptions) -> list[str]:
    """Return what is wrong with the options; none of it repeats a secret."""
    if not options.url:
        return []
    return [*_url_problems(options), *_credential_problems(options), *_file_problems(options)]


def _url_problems(options: RedisOptions) -> list[str]:
    schemes = tuple(f"{scheme}://" for scheme in SCHEMES)
    try:
        parts = urlsplit(options.url)
        is_address = options.url.startswith(schemes) and bool(
            parts.path and not parts.hostname if parts.scheme == "unix" else parts.hostname
        )
    except ValueError:
        is_address = False
    if not is_address:
        return [f"redis.url: is not {schemes[0]}HOST..., {schemes[1]}HOST... or {schemes[2]}/PATH"]
    problems = []
    try:
        _ = parts.port
    except ValueError:
        problems.append("redis.url: its port is no number from 0 to 65535")
    if parts.scheme != "unix" and not _DATABASE.fullmatch(parts.path):
        problems.append("redis.url: its path is no number of a database")
    if parts.query or parts.fragment:
        problems.append("redis.url: has a query; each setting has an option of its own")
    if "@" in parts.netloc:
        problems += [
            f"redis.{name}: is given beside a user or a password in redis.url"
            for name in ("username", "password", "password_file")
            if getattr(options, name)
        ]
    if options.ca_file and parts.scheme != "rediss":
        problems.append("redis.ca_file: is given without rediss:// in redis.url, which then speaks no TLS")
    return problems


def _credential_problems(options: RedisOptions) -> list[str]:
    if options.password and options.password_file:
        return ["redis.password: is given beside redis.password_file"]
    if options.username and not (options.password or options.password_file):
        return ["redis.username: is given without redis.password or redis.password_file"]
    return []


def _file_problems(options: RedisOptions) -> list[str]:
    problems = []
    for name, read in (
        ("password_file", read_file),
        ("ca_file", read_certificates_file),
        ("seal_key_file", _read_seal_key),
    ):
        try:
            if path := getattr(options, name):
                read(path)
        except FileProblem as problem:
            problems.append(f"redis.{name}: {problem}")
    return problems


def seal_key(options: RedisOptions) -> bytes:
    """Return the key of the entries' seals, without space around it such as a final newline; empty for none."""
    return _read_seal_key(options.seal_key_file) if options.seal_key_file else b""


def shown_address(options: RedisOptions) -> str:
    """Return the address for the log: no user, no password."""
    parts = urlsplit(options.url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _read_seal_key(path: str) -> bytes:
    key = read_file(path).strip()
    if len(key) < MIN_SEAL_KEY_BYTES:
        raise FileProblem(f"{path} holds less than {MIN_SEAL_KEY_BYTES} bytes")
    return key
