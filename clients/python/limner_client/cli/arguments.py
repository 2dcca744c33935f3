"""The command line of `limner`, and its help."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from limner_client.channel import DEFAULT_TARGET
from limner_client.choices import ImageFormat, Priority, ReferenceLayers, Sampler
from limner_client.cli.exits import HELP
from limner_client.reference import Region, is_digest
from limner_client.routing import Routing

ABOUT = """Generate portraits from a prompt and a reference picture.

The prompt decides scene, mood, camera and styling; the reference decides who the picture looks like.
It is a creative guide and no face lock: never identity verification, biometrics or impersonation."""

ADVICE = """advice:
  Write one clean, direct prompt in a neutral style, with explicit camera and light; name expression and gaze.
  Give one clear, front-facing, unfiltered reference; several weak ones do not add up to a strong one.
  Accept a baseline first, then change one thing a run: the wording, the reference or the guidance.
  style ignored        rewrite the prompt with camera and light blocks
  identity unstable    use a better frontal reference
  waxy, synthetic      less style, lower guidance, no stacked realism words
  wrong expression     name expression and gaze in the prompt
  Keep the task id of each run with a short note of what you saw."""


def build_parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """Build the parser; `LIMNER_SERVER` and `LIMNER_TENANT` in `environment` set defaults."""
    parser = argparse.ArgumentParser(
        prog="limner", description=ABOUT, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared = _connection(environment)
    for name, text, fill in (
        ("generate", "generate a portrait and save its pictures", _generate),
        ("upload", "upload a reference picture and print its digest", _upload),
        ("delete", "make the server forget a reference", _delete),
        ("info", "list the models and the limits", None),
        ("health", "tell whether the server is alive and ready", None),
    ):
        command = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=ADVICE if name == "generate" else None,
            parents=[shared],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if fill is not None:
            fill(command)
    return parser


def _connection(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("server")
    group.add_argument(
        "--server",
        default=environment.get("LIMNER_SERVER") or DEFAULT_TARGET,
        metavar="HOST:PORT",
        help="default %(default)s, from LIMNER_SERVER where that is set",
    )
    group.add_argument(
        "--tenant",
        default=environment.get("LIMNER_TENANT", ""),
        help="whose references these are; default LIMNER_TENANT",
    )
    group.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="deadline of the whole command, retries included"
    )
    group.add_argument(
        "--routing",
        choices=get_args(Routing),
        default="any",
        help="reference: all calls of a reference to one of the addresses that the server's name has",
    )
    group.add_argument("--tls", action="store_true", help="use TLS, with gRPC's own root certificates")
    group.add_argument("--tls-ca", type=Path, metavar="PEM", help="use TLS, and trust these roots")
    group.add_argument("--tls-cert", type=Path, metavar="PEM", help="this client's certificate (mutual TLS)")
    group.add_argument("--tls-key", type=Path, metavar="PEM", help="its private key")
    group.add_argument(
        "--tls-server-name", metavar="NAME", help="use TLS, and expect this name in the server's certificate"
    )
    group.add_argument("--json", action="store_true", help="print one JSON object; errors too, on stderr")
    return parser


def _generate(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("prompt", help="scene, mood, camera, light and expression, in a neutral style")
    add("-r", "--reference", type=_reference, action="append", metavar="FILE|DIGEST",
        help="who the portrait looks like; several are blended")  # fmt: skip
    add("--reference-weights", type=_weights, metavar="X,X,...",
        help="of several references, one each; 1 is the default")  # fmt: skip
    add("--reference-regions", type=_regions, metavar="L,T,R,B;...",
        help="where each acts, its left, top, right and bottom edge from 0 to 1; nothing between ;; is everywhere: "
             "0,0,.5,1;.5,0,1,1")  # fmt: skip
    add("-o", "--output", type=Path, default=Path("portrait.png"), metavar="FILE",
        help="default %(default)s; several images become FILE-0, FILE-1, ...; overwrites")  # fmt: skip
    portrait = command.add_argument_group("portrait (what is left out takes the model's default)")
    add = portrait.add_argument
    add("--negative-prompt", metavar="TEXT", help="what to keep out; acts only with guidance above 1")
    add("--ip-adapter-scale", type=float, metavar="X",
        help="weight of the reference against the prompt: 0 is the prompt alone, 1 the default")  # fmt: skip
    add("--adapter", metavar="NAME", help="the adapter that references go through, from `limner info`")
    add("--reference-layers",
        choices=[value.value for value in ReferenceLayers if value != ReferenceLayers.UNKNOWN],
        help="take the reference's style or layout alone, where the model knows the layers")  # fmt: skip
    add("--guidance-scale", type=float, metavar="X",
        help="how strictly the prompt is obeyed; too high gives brittle, overcooked pictures")  # fmt: skip
    add("--guidance-start", type=float, metavar="X", help="part of the steps before guidance begins: 0 to 1")
    add("--guidance-end", type=float, metavar="X", help="part of the steps after which guidance ends: 0 to 1")
    add("--guidance-rescale", type=float, metavar="X", help="tempers over-exposure at high guidance: 0 to 1")
    add("--steps", type=int, metavar="N", help="denoising steps: they steady fine detail, not identity")
    add("--sampler", choices=[value.value for value in Sampler if value != Sampler.UNKNOWN])
    add("--size", type=_size, metavar="WxH", help="pixels, multiples of the model's size_multiple")
    add("-n", "--image-count", type=int, metavar="N", help="images, with seed, seed + 1, and so on")
    add("--seed", type=int, metavar="N", help="makes the portrait repeatable; otherwise one is drawn")
    add("--format", choices=[value.value for value in ImageFormat if value != ImageFormat.UNKNOWN],
        help="default: by the suffix of the output file")  # fmt: skip
    add("--quality", type=int, metavar="N", help="of JPEG and WebP: 1 to 100")
    add("--priority", choices=[value.value for value in Priority], help="batch gives way to interactive")
    add("--deterministic", action="store_true", default=None,
        help="the same bits whatever shares the batch, at some cost in throughput")  # fmt: skip
    add("--model", metavar="NAME", help="a name from `limner info`")


def _upload(command: argparse.ArgumentParser) -> None:
    command.add_argument("image", type=Path, metavar="FILE", help="a JPEG, PNG or WebP picture")
    command.add_argument("--adapter", default="", metavar="NAME", help="the adapter that it is for")
    command.add_argument("--model", default="", metavar="NAME", help="the model that it is for")


def _delete(command: argparse.ArgumentParser) -> None:
    command.add_argument("digest", help="the reference's digest, as `limner upload` printed it")


def _reference(text: str) -> Path | str:
    """Take a digest for a digest, unless a file has that name."""
    path = Path(text)
    return text if is_digest(text) and not path.exists() else path


def _weights(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(weight) for weight in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of weights such as 1,0.5") from None


def _regions(text: str) -> tuple[Region | None, ...]:
    return tuple(_region(part) if part else None for part in text.split(";"))


def _region(text: str) -> Region:
    try:
        left, top, right, bottom = (float(edge) for edge in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no region such as 0,0,0.5,1") from None
    return left, top, right, bottom


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 512x512")
    return int(match[1]), int(match[2])
