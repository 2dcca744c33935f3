"""Draw contact sheets from pairs 0, 1, 2 ... and seeds 0, 1, 2 ...; nothing is picked by hand."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.embedded.quality.generate import Order
from engine.embedded.quality.pairs import Pairs
from engine.embedded.quality.reconstruction import reconstruct
from engine.embedded.quality.settings import AXES, MAIN, Setting
from engine.embedded.quality.tiles import Tile, sheet
from engine.embedded.recipe.data import ATTRIBUTES, Drawings

Draw = Callable[[str, Sequence[Order]], NDArray[np.uint8]]

COUNT, COLUMNS, PEOPLE = 12, 6, 4
_ONE_ROW = "one person, prompt and seed a row, seeds 0, 1, 2 ..."
# Where eyes and glasses lie at either framing: rows, columns.
_EYES = (slice(42, 74), slice(32, 96))


def draw_sheets(draw: Draw, pairs: Pairs, directory: Path) -> list[str]:
    """Write the sheets of generated pictures to `directory`; return their file names.

    `draw` generates orders under a progress bar with a name.
    """
    directory.mkdir(parents=True, exist_ok=True)
    names = []
    for name, make in (
        ("scenes", _scenes),
        ("people", _people),
        ("scales", _scales),
        ("guidance", _guidance),
    ):
        make(draw, pairs).save(directory / f"{name}.png", optimize=True)
        names.append(f"{name}.png")
    return names


def eyes_sheet(vae: Any, drawings: Drawings, path: Path, *, count: int = 12) -> None:
    """Write eyes of held-out people in glasses, one a person, original above reconstruction, enlarged 4 times."""
    column = list(ATTRIBUTES).index("glasses")
    firsts = np.arange(0, len(drawings), drawings.scenes)
    chosen = firsts[drawings.labels[firsts, column] > 0][:count]
    originals = np.array(drawings.images[chosen])
    given_back = reconstruct(vae, originals)
    rows: list[list[Tile]] = []
    for start in range(0, len(chosen), 4):
        for pictures, caption in ((originals, "drawing"), (given_back, "reconstruction")):
            rows.append([Tile(picture=p[_EYES], caption=caption) for p in pictures[start : start + 4]])
    note = f"the first {len(chosen)} held-out people who wear glasses; drawing above, VAE below; enlarged 4 times"
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet("Eyes and glasses through the VAE", note, rows, scale=4.0).save(path, optimize=True)


def _order(pairs: Pairs, person: int, scene: int, seed: int, setting: Setting = MAIN) -> Order:
    return Order(
        prompt=pairs.prompt(scene, setting),
        reference=pairs.reference(person, setting),
        seed=seed,
        setting=setting,
    )


def _scenes(draw: Draw, pairs: Pairs) -> Any:
    count = min(COUNT, len(pairs))
    pictures = draw("sheet: scenes", [_order(pairs, 0, n, n) for n in range(count)])
    made = [Tile(picture=picture, caption=pairs.prompt(n, MAIN)) for n, picture in enumerate(pictures)]
    rows = [
        [_reference(pairs, 0) if start == 0 else Tile(), *made[start : start + COLUMNS]]
        for start in range(0, count, COLUMNS)
    ]
    return sheet(
        "One person in twelve scenes", f"reference on the left; seeds 0 to {count - 1}; {_rest()}", rows
    )


def _people(draw: Draw, pairs: Pairs) -> Any:
    count = min(COUNT, len(pairs))
    pictures = draw("sheet: people", [_order(pairs, n, 0, n) for n in range(count)])
    rows: list[list[Tile]] = []
    for start in range(0, count, COLUMNS):
        numbers = range(start, min(start + COLUMNS, count))
        rows.append([_reference(pairs, n) for n in numbers])
        rows.append([Tile(picture=pictures[n], caption=f"seed {n}") for n in numbers])
    note = f"\u201c{pairs.prompt(0, MAIN)}\u201d; reference above, picture below; {_rest()}"
    return sheet("Twelve people in one scene", note, rows)


def _scales(draw: Draw, pairs: Pairs) -> Any:
    rows = _axis(draw, pairs, "ip_adapter_scale", "scale")
    return sheet("IP-Adapter scale", f"{_ONE_ROW}; {_rest('ip_adapter_scale')}", rows)


def _guidance(draw: Draw, pairs: Pairs) -> Any:
    rows = _axis(draw, pairs, "guidance_scale", "guidance")
    return sheet("Guidance", f"{_ONE_ROW}; {_rest('guidance_scale')}", rows)


def _axis(draw: Draw, pairs: Pairs, axis: str, word: str) -> list[list[Tile]]:
    people = range(min(PEOPLE, len(pairs)))
    values = AXES[axis]
    settings = [replace(MAIN, **{axis: value}) for value in values]  # type: ignore[arg-type]
    orders = [_order(pairs, n, n, n, setting) for n in people for setting in settings]
    pictures = draw(f"sheet: {word}", orders)
    return [
        [
            Tile(picture=pairs.reference(n, MAIN), caption=f"reference; \u201c{pairs.prompt(n, MAIN)}\u201d"),
            *(
                Tile(picture=pictures[n * len(values) + k], caption=f"{word} {value:g}", strong=True)
                for k, value in enumerate(values)
            ),
        ]
        for n in people
    ]


def _reference(pairs: Pairs, person: int) -> Tile:
    return Tile(picture=pairs.reference(person, MAIN), caption="reference", strong=True)


def _rest(varied: str = "") -> str:
    """Return the main setting in words, without the axis that a sheet varies."""
    words = {
        "ip_adapter_scale": f"scale {MAIN.ip_adapter_scale:g}",
        "steps": f"{MAIN.steps} {MAIN.sampler.upper()} steps",
        "guidance_scale": f"guidance {MAIN.guidance_scale:g}",
    }
    return ", ".join(text for axis, text in words.items() if axis != varied)
