"""Render docs/configuration.md: ``python -m server.config.document > docs/configuration.md``."""

from __future__ import annotations

import inspect
import sys
from itertools import groupby
from typing import Any

import msgspec

from server.config.options import Config
from server.config.table import Option, all_options

INTRODUCTION = """\
# Configuration

`limner-server` needs none. Options come from a TOML file (`--config FILE` or `LIMNER_CONFIG`), from the environment
and from flags; flags win over the environment, the environment over the file. An unknown key, a value of the wrong
type or out of its bounds ends the start with a message that names the key, where it was given and the problem.

```toml
# limner.toml
[listen]
port = 50051

[limits]
max_steps = 50
```

is the same as `LIMNER_LISTEN_PORT=50051 LIMNER_LIMITS_MAX_STEPS=50` and as
`--listen-port 50051 --limits-max-steps 50`. Lists are comma-separated in the environment and in flags
(`--engine-buckets 1,2,4,8`). A flag of a true-or-false option may stand alone (`--log-prompts`).

What Kubernetes sets beside a Service named `limner` (`LIMNER_PORT`, `LIMNER_SERVICE_HOST`, ...) is not mistaken for
options.

The exit status is 0 after a signal, 2 for a configuration that is wrong, 3 when a port cannot be had, and 4 when a
model's first engine cannot start at all, as with a model that is not there, or when the default model calls itself as
another one is called; the engine's own message is then in the log. An engine that was ready once is replaced for as
long as the server lives.

This page is generated from the classes in `server/config/` by `python -m server.config.document`; a test compares them.
"""


def render() -> str:
    """Return the page."""
    titles = {
        field.name: inspect.cleandoc(str(field.type.__doc__)) for field in msgspec.structs.fields(Config)
    }
    parts = [INTRODUCTION]
    for section, options in groupby(all_options(), key=lambda option: option.section):
        parts.append(f"\n## `[{section}]`\n\n{titles[section]}\n\n")
        parts.append("| key | values | default | what it is |\n|---|---|---|---|\n")
        parts += [_row(option) for option in options]
    return "".join(parts)


def _row(option: Option) -> str:
    flags = ", ".join(f"`{flag}`" for flag in option.flags)
    where = f"`{option.variable}`, {flags}"
    return (
        f"| `{option.name}` | {option.bounds} | {_value(option.default)} | {option.description} {where} |\n"
    )


def _value(value: Any) -> str:
    if value == "" or value == ():
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(render())
