"""``make demo``: a server, two people, four scenes each; the pictures and a table stay behind."""

from __future__ import annotations

import argparse
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from limner_client import Client, Portrait
from PIL import Image, ImageDraw

from engine.embedded import reference_portraits
from tools.local_server import LocalServer, local_server

PEOPLE = ("ada", "chike")
SEED = 7
GAP = 8
CAPTION = 40
CHARACTER = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One generated portrait, and what was asked for."""

    person: str
    scene: str
    portrait: Portrait
    seconds: float
    path: Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for pictures, table and log")
    options = parser.parse_args(arguments)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    people = {name: reference_portraits()[name] for name in PEOPLE}
    print(f"starting the server (its log: {out / 'server.log'})", flush=True)
    with local_server("--log-format", "json", log=out / "server.log") as server:
        print(f"ready after {server.ready_seconds:.1f} s on {server.target}", flush=True)
        shots = _shoot(server, people, out)
    sheet = contact_sheet(people, shots)
    sheet.save(out / "contact-sheet.png")
    table = timings(shots)
    (out / "timings.txt").write_text(table + "\n")
    print(f"\n{table}\n\npictures are in {out}/; all of them together: {out / 'contact-sheet.png'}")


def _shoot(server: LocalServer, people: dict[str, Path], out: Path) -> list[Shot]:
    shots = []
    with Client(server.target) as client:
        for person, picture in people.items():
            start = time.perf_counter()
            reference = client.upload(picture)
            taken = time.perf_counter() - start
            print(
                f"uploaded {picture.name} in {taken:.2f} s: {reference.cache_outcome}, digest {reference.digest[:12]}"
            )
            for warning in reference.warnings:
                print(f"  warning: {warning.message} {warning.action}", file=sys.stderr)
            for number, scene in enumerate(SCENES):
                start = time.perf_counter()
                portrait = client.generate(scene, reference=reference, seed=SEED + number)
                path = portrait.image.save(out / f"{person}-{number + 1}.png")
                shot = Shot(
                    person=person,
                    scene=scene,
                    portrait=portrait,
                    seconds=time.perf_counter() - start,
                    path=path,
                )
                shots.append(shot)
                print(
                    f"{path}  {shot.seconds:.2f} s  reference: {portrait.cache_outcome}  {scene}", flush=True
                )
                for warning in portrait.warnings:
                    print(f"  warning: {warning.message} {warning.action}", file=sys.stderr)
    return shots


def contact_sheet(people: dict[str, Path], shots: Sequence[Shot]) -> Image.Image:
    """Draw one line for each person, the reference first, with each scene's prompt under its picture."""
    first = shots[0].portrait.image.to_pil()
    width, height = (2 * side for side in first.size)
    columns = 1 + len(shots) // len(people)
    sheet = Image.new(
        "RGB",
        (GAP + columns * (width + GAP), GAP + len(people) * (height + CAPTION + GAP)),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    for row, (person, picture) in enumerate(people.items()):
        cells: list[tuple[str, Image.Image]] = [(f"reference: {person}", Image.open(picture))]
        cells += [(shot.scene, shot.portrait.image.to_pil()) for shot in shots if shot.person == person]
        for column, (caption, image) in enumerate(cells):
            left, top = GAP + column * (width + GAP), GAP + row * (height + CAPTION + GAP)
            sheet.paste(image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS), (left, top))
            lines = "\n".join(textwrap.wrap(caption, width // CHARACTER))
            draw.text((left, top + height + 2), lines, fill="black")
    return sheet


def timings(shots: Sequence[Shot]) -> str:
    """Return a table of where the time went, in milliseconds."""
    lines = [
        f"{'person':10} {'reference':10} {'ref ready':>10} {'queue':>8} {'denoise':>8} {'decode':>8} {'total':>8}"
    ]
    for shot in shots:
        took = shot.portrait.timings
        milliseconds = (
            took.reference_seconds,
            took.queue_seconds,
            took.denoise_seconds,
            took.decode_latents_seconds,
            took.total_seconds,
        )
        cells = [f"{1000 * value:.1f}" for value in milliseconds]
        lines.append(
            f"{shot.person:10} {shot.portrait.cache_outcome!s:10} {cells[0]:>10} "
            + " ".join(f"{cell:>8}" for cell in cells[1:])
        )
    return "\n".join([*lines, "milliseconds; `ref ready` is the wait for the reference's embedding"])


SCENES = (
    "a portrait of a person, smiling, wearing a red sweater, on a blue background",
    "a portrait of a person, laughing, wearing a yellow sweater, at the beach, wearing a straw hat",
    "a portrait of a person, serious, wearing a black sweater, in a city at night, wearing a beanie",
    "a portrait of a person, calm, wearing a white sweater, in a forest, warm light",
)
"""Within the vocabulary of the model in the box, see engine/embedded/README.md."""

if __name__ == "__main__":
    main()
