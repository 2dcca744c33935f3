"""Where options come from: a TOML file, the environment, flags. Each yields (key, value, where it was said)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from server.config.errors import ConfigError
from server.config.table import ENVIRONMENT_PREFIX, Option

CONFIG_VARIABLE = "LIMNER_CONFIG"
_CLIENT_VARIABLES = frozenset({"LIMNER_SERVER", "LIMNER_TENANT"})
"""What the command ``limner`` reads; both programs may run in one shell."""
_SERVICE_LINKS = re.compile(
    r"LIMNER(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""What Kubernetes sets in every pod beside a Service named limner or limner-... (docs: enableServiceLinks)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A value that was given for a key, and where. ``text`` values are still to be read from their spelling."""

    key: str
    value: Any
    origin: str
    text: bool


def from_file(path: Path) -> Iterator[Setting]:
    """Read a TOML file of sections. Raises ``ConfigError`` when it cannot be read."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError([f"{path}: {error}"]) from error
    for section, values in document.items():
        if isinstance(values, dict):
            for name, value in values.items():
                yield Setting(key=f"{section}.{name}", value=value, origin=str(path), text=False)
        else:
            yield Setting(key=section, value=values, origin=str(path), text=False)


def from_environment(environment: Mapping[str, str], options: Mapping[str, Option]) -> Iterator[Setting]:
    """Read ``LIMNER_<SECTION>_<NAME>``; other variables of that prefix come out under a key that no option has."""
    by_variable = {option.variable: key for key, option in options.items()}
    for variable, value in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable == CONFIG_VARIABLE:
            continue
        if variable in by_variable:
            yield Setting(key=by_variable[variable], value=value, origin=variable, text=True)
        elif variable not in _CLIENT_VARIABLES and not _SERVICE_LINKS.fullmatch(variable):
            yield Setting(key=variable, value=value, origin="environment", text=True)


def from_flags(flags: Mapping[str, str]) -> Iterator[Setting]:
    """Read parsed flags, by option key."""
    for key, value in flags.items():
        yield Setting(key=key, value=value, origin="flags", text=True)


def unknown_key(setting: Setting, options: Mapping[str, Option]) -> str:
    """Say that no option has this key, and which one may have been meant."""
    names = [option.variable for option in options.values()] if setting.key.isupper() else list(options)
    close = get_close_matches(setting.key, names, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{setting.key} ({setting.origin}): no such option{hint}"
