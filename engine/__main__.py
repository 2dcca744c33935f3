"""The command ``limner-engine``. Heavy imports wait until a subcommand needs them."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path

from engine.backends.tensorrt.command import add_build
from engine.calibration.command import add_calibrate
from engine.config import ConfigError, EngineConfig
from engine.export.command import add_export
from engine.models.lora_choice import add_lora_option

SPIN_COUNT = "20000"
"""How often OpenMP's threads look for work before they sleep; the engine shares its cores with the server.

It counts where torch itself computes on the CPU: beside another library it has one thread (`config.torch_threads`).
Without a bound that fits, a thread spins for one that has lost its core (11 times the CPU time for a tick was seen);
without spinning, waking up doubles the time of a small tick.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return the exit status."""
    options = _parser().parse_args(arguments)
    run: int = options.run(options)
    return run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="limner-engine", description="Limner's engine process.")
    commands = parser.add_subparsers(title="commands", required=True)
    add_build(commands)
    add_calibrate(commands)
    serve = commands.add_parser("serve", help="serve one server over a Unix stream socket")
    serve.set_defaults(run=_serve)
    where = serve.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket-fd", type=int, metavar="N", help="inherited, connected socket")
    where.add_argument("--socket", type=Path, metavar="PATH", help="socket that a server listens on")
    serve.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    add_lora_option(serve)
    add_export(commands)
    defaults = {field.name: field.default for field in fields(EngineConfig)}
    for name, kind, what in _SETTINGS:
        default = defaults[name]
        text = what if default in (None, MISSING) else f"{what} (default {default})"
        serve.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default, help=text)
    return parser


def _buckets(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


_SETTINGS = (
    ("model", Path, "model directory in diffusers' layout; the shipped model if not given"),
    ("backend", str, "what computes"),
    ("adapter", str, "default IP-Adapter, by its file's stem, where the model has several"),
    ("device", str, "device to compute on"),
    ("dtype", str, "type to compute in"),
    ("threads", int, "CPU threads of the backend"),
    ("lanes", int, "parts of a tick's rows that run at the same time"),
    (
        "cache_dir",
        Path,
        "where exports, compiled graphs and engines are kept (default limner in the user's cache directory)",
    ),
    ("buckets", _buckets, "batch sizes in rows, comma separated"),
    ("deterministic_bucket", int, "bucket of ticks that hold a deterministic image"),
    ("prompt_cache_bytes", int, "prompt embeddings to keep, in bytes"),
    ("reference_batch", int, "pictures in each call of the image encoder"),
    ("decode_batch", int, "images in one call of the VAE, at most"),
    ("decode_patience_ticks", int, "ticks that a finished image waits for others"),
    ("max_waiting", int, "images that may wait for their first tick"),
    ("aging_seconds", float, "how much later a batch image counts as having arrived"),
    ("headroom", float, "factor on predicted times at admission"),
)


def _serve(options: argparse.Namespace) -> int:
    # Whatever a library prints must not look like ours, and models come from the disk alone.
    os.dup2(2, 1)
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", DIFFUSERS_VERBOSITY="error")
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    try:
        settings = {name: getattr(options, name) for name, _, _ in _SETTINGS}
        config = EngineConfig(**settings, loras=tuple(options.loras))
        connection = _connect(options)
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"limner-engine: {error}\n")
        return 2
    from engine.loop.logs import configure_logging

    configure_logging(options.log_level)
    from engine.loop.process import serve_process

    return serve_process(config, connection)


def _connect(options: argparse.Namespace) -> socket.socket:
    if options.socket_fd is not None:
        return socket.socket(fileno=options.socket_fd)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(options.socket))
    return connection


if __name__ == "__main__":
    sys.exit(main())
