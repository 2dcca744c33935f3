"""What each command does."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import cast

from limner_client.choices import ImageFormat
from limner_client.cli import render
from limner_client.cli.exits import FAILED, OK
from limner_client.cli.progress import ProgressLine
from limner_client.client import Client
from limner_client.events import Completed
from limner_client.portrait import Portrait
from limner_client.reference import WeightedReference
from limner_client.settings import Settings

_SETTINGS = (
    "negative_prompt",
    "ip_adapter_scale",
    "guidance_scale",
    "guidance_rescale",
    "guidance_start",
    "guidance_end",
    "steps",
    "sampler",
    "image_count",
    "seed",
    "quality",
    "priority",
    "deterministic",
    "model",
    "adapter",
    "reference_layers",
)
_SUFFIXES = {
    ".png": ImageFormat.PNG,
    ".jpg": ImageFormat.JPEG,
    ".jpeg": ImageFormat.JPEG,
    ".webp": ImageFormat.WEBP,
}


def run(client: Client, arguments: argparse.Namespace) -> int:
    """Run the command that the arguments name and return the exit code. Raises as `Client` does."""
    match arguments.command:
        case "generate":
            return _generate(client, arguments)
        case "upload":
            reference = client.upload(
                arguments.image, adapter=arguments.adapter, model=arguments.model, timeout=arguments.timeout
            )
            _print(arguments, render.reference_text(reference), asdict(reference))
        case "delete":
            client.delete_reference(arguments.digest, timeout=arguments.timeout or 10.0)
            _print(arguments, "forgotten", {"digest": arguments.digest})
        case "info":
            timeout = arguments.timeout or 10.0
            info, limits = client.info(timeout=timeout), client.limits(timeout=timeout)
            _print(arguments, render.info_text(info, limits), {**asdict(info), "limits": asdict(limits)})
        case "health":
            health = client.health(timeout=arguments.timeout or 5.0)
            _print(arguments, render.health_text(health), asdict(health))
            return OK if health.ready else FAILED
    return OK


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Collect the settings that were given; the format follows the output's suffix unless it was named.

    Raises ValueError for a suffix that names no format.
    """
    given = {name: getattr(arguments, name) for name in _SETTINGS}
    if arguments.size:
        given["width"], given["height"] = arguments.size
    given["format"] = arguments.format or _SUFFIXES.get(arguments.output.suffix.lower())
    if given["format"] is None:
        raise ValueError(
            f"{arguments.output}: the suffix names no format; use {', '.join(_SUFFIXES)} or --format"
        )
    return cast(Settings, {name: value for name, value in given.items() if value is not None})


def references_of(
    arguments: argparse.Namespace,
) -> list[Path | str | WeightedReference]:
    """Collect the references with their weights and regions. Raises ValueError unless there is one for each."""
    sources, weights = arguments.reference or [], arguments.reference_weights
    regions = arguments.reference_regions
    if weights is None and regions is None:
        return list(sources)
    weights, regions = weights or (1.0,) * len(sources), regions or (None,) * len(sources)
    for what, given in (("weights", weights), ("regions", regions)):
        if len(given) != len(sources):
            raise ValueError(f"{len(given)} {what} for {len(sources)} references")
    return [
        WeightedReference(source=source, weight=weight, region=region)
        for source, weight, region in zip(sources, weights, regions, strict=True)
    ]


def output_paths(output: Path, count: int) -> list[Path]:
    """Name the files: `output` for one image, else with -0, -1 and so on before the suffix."""
    if count == 1:
        return [output]
    return [output.with_name(f"{output.stem}-{index}{output.suffix}") for index in range(count)]


def _generate(client: Client, arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    if not arguments.output.parent.is_dir():  # found out before the work, not after it
        raise FileNotFoundError(f"{arguments.output.parent}: no such folder")
    progress = ProgressLine()
    portrait: Portrait | None = None
    try:
        with client.stream(
            arguments.prompt, references_of(arguments), timeout=arguments.timeout, **settings
        ) as news:
            for event in news:
                progress.show(event)
                if isinstance(event, Completed):
                    portrait = event.portrait
    finally:
        progress.clear()
    if portrait is None:  # pragma: no cover  a stream without its last message raises
        return FAILED
    paths = output_paths(arguments.output, len(portrait.images))
    for image, path in zip(portrait.images, paths, strict=True):
        image.save(path)
    _print(arguments, render.portrait_text(portrait, paths), render.portrait_json(portrait, paths))
    return OK


def _print(arguments: argparse.Namespace, text: str, content: object) -> None:
    print(render.to_json(content) if arguments.json else text)
