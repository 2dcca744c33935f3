"""Put the configuration together: flags over environment over file over defaults."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from server.config.collector import ENDPOINT, named_collector, switched_off
from server.config.errors import ConfigError
from server.config.models import model_problems
from server.config.options import Config
from server.config.redis import redis_problems
from server.config.sources import (
    CONFIG_VARIABLE,
    Setting,
    from_environment,
    from_file,
    from_flags,
    unknown_key,
)
from server.config.table import Option, all_options
from server.config.tls import tls_problems


def load(
    arguments: Sequence[str], environment: Mapping[str, str], *, warn: Callable[[str], None] = lambda _: None
) -> Config:
    """Return the configuration that these flags and this environment ask for.

    Raises ``ConfigError`` naming every key at fault, and ``SystemExit`` for ``--help`` and unknown flags. ``warn`` is
    told of what others set and cannot be used.
    """
    options = {option.key: option for option in all_options()}
    flags = vars(flag_parser(options.values()).parse_args(arguments))
    file = flags.pop("config", None) or environment.get(CONFIG_VARIABLE)
    settings: list[Setting] = []
    if file:
        settings += from_file(Path(file))
    ours = [*from_environment(environment, options), *from_flags(flags)]
    if not any(setting.key == ENDPOINT for setting in ours):
        settings += named_collector(environment, options[ENDPOINT], warn)
    settings += ours
    settings += switched_off(environment)
    return build(settings, options)


def build(settings: Iterable[Setting], options: Mapping[str, Option]) -> Config:
    """Return the configuration in which later settings replace earlier ones. Raises ``ConfigError``."""
    problems: list[str] = []
    sections: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for setting in settings:
        option = options.get(setting.key)
        if option is None:
            problems.append(unknown_key(setting, options))
            continue
        try:
            sections[option.section][option.name] = option.convert(setting.value, text=setting.text)
        except msgspec.ValidationError as error:
            problems.append(f"{setting.key} ({setting.origin}): {error}, found {setting.value!r}")
    if problems:
        raise ConfigError(problems)
    types = {field.name: field.type for field in msgspec.structs.fields(Config)}
    config = Config(**{name: types[name](**values) for name, values in sections.items()})
    if problems := _contradictions(config):
        raise ConfigError(problems)
    return config


def _contradictions(config: Config) -> list[str]:
    """Return what is wrong between options that are sound by themselves."""
    problems = []
    room = 64 * 1024
    if config.limits.max_message_bytes < config.limits.max_image_bytes + room:
        problems.append(
            f"limits.max_message_bytes: {config.limits.max_message_bytes} leaves no room for a reference of "
            f"limits.max_image_bytes ({config.limits.max_image_bytes}) and {room} bytes beside it"
        )
    if config.admission.max_concurrent_rpcs <= config.admission.max_requests_in_flight:
        problems.append(
            f"admission.max_concurrent_rpcs: {config.admission.max_concurrent_rpcs} leaves no room beside "
            f"admission.max_requests_in_flight ({config.admission.max_requests_in_flight}), so that nobody would hear "
            "OVERLOADED"
        )
    if config.engine.restart_delay_max_seconds < config.engine.restart_delay_seconds:
        problems.append("engine.restart_delay_max_seconds: is below engine.restart_delay_seconds")
    problems += model_problems(config.engine)
    problems += redis_problems(config.redis)
    problems += tls_problems(config.tls)
    return problems


def flag_parser(options: Iterable[Option]) -> argparse.ArgumentParser:
    """Return the command line's parser; every option has a flag, and what is not given is absent."""
    parser = argparse.ArgumentParser(
        prog="limner-server",
        description="Serve portraits over gRPC. Options: docs/configuration.md.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--config", metavar="FILE", help=f"TOML file with options; also {CONFIG_VARIABLE}")
    for option in options:
        extra: dict[str, Any] = {"nargs": "?", "const": "true"} if option.is_flag_alone else {}
        text = f"{option.description} ({option.bounds}; default {option.default!r})".replace("%", "%%")
        parser.add_argument(
            *option.flags, dest=option.key, metavar=option.name.rpartition("_")[2].upper(), help=text, **extra
        )
    return parser
