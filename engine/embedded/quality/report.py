"""Put the report together from what a store holds; parts that were not measured yet are left out."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from engine.embedded.quality.accuracy import by_attribute, chance_by_attribute, mean_of, standard_error
from engine.embedded.quality.frechet import frechet_distance
from engine.embedded.quality.pairs import Pairs
from engine.embedded.quality.readings import Readings, Store
from engine.embedded.quality.settings import (
    AXES,
    IDENTITY_BAR,
    MAIN,
    MAIN_SETTINGS,
    PROMPT_BAR,
    Setting,
    along,
)

Figures = dict[str, Any]


def assemble(store: Store, pairs: Pairs, names: Sequence[str], *, grid_pairs: int) -> Figures:
    """Return the report as a JSON value; `names` are the reader's attributes in order."""
    report: Figures = {
        "pairs": len(pairs),
        "grid_pairs": grid_pairs,
        "main_setting": asdict(MAIN),
        "identity_attributes": list(IDENTITY_BAR),
        "prompt_attributes": list(PROMPT_BAR),
    }
    if main := main_figures(store, pairs, names):
        report["main"] = main
    if grid := grid_figures(store, pairs, names, grid_pairs):
        report["grid"] = grid
    if (distances := frechet_figures(store, pairs)) is not None:
        report["frechet"] = distances
    for part in ("vae", "sheets"):
        if (figures := store.part(part)) is not None:
            report[part] = figures
    return report


def main_figures(store: Store, pairs: Pairs, names: Sequence[str]) -> Figures | None:
    """Return accuracy by attribute for every main setting, the permutation baseline and the reader's own; or None.

    None until all of them are measured on all pairs.
    """
    figures: Figures = {}
    for name, setting in MAIN_SETTINGS.items():
        kept = complete(store, setting, len(pairs))
        if kept is None:
            return None
        figures[name] = _scores(kept, pairs, names)
        if name == "unscaled" and len(pairs) > 1:
            chance = chance_by_attribute(kept.read, pairs.labels, names)
            figures["chance"] = _with_means(chance)
    if (drawings := store.readings("drawings-targets")) is not None and len(drawings) >= len(pairs):
        figures["drawings"] = _scores(drawings.first(len(pairs)), pairs, names)
    share = figures["reference"]["identity"]
    figures["reference"]["identity_standard_error"] = standard_error(share, len(pairs) * len(IDENTITY_BAR))
    gap = figures["neutral"]["identity"] - figures["reference"]["identity"]
    figures["neutral_minus_elsewhere_points"] = {
        "identity": 100 * gap,
        **{
            n: 100 * (figures["neutral"]["by_attribute"][n] - figures["reference"]["by_attribute"][n])
            for n in names
        },
    }
    return figures


def grid_figures(store: Store, pairs: Pairs, names: Sequence[str], count: int) -> Figures | None:
    """Return `{axis: [{value, identity, prompt, by_attribute}, ...]}` on the first `count` pairs, or None."""
    grid: Figures = {}
    for axis in AXES:
        points = []
        for setting in along(axis):
            kept = complete(store, setting, count)
            if kept is None:
                return None
            points.append({"value": getattr(setting, axis), **_scores(kept, pairs, names)})
        grid[axis] = points
    return grid


def frechet_figures(store: Store, pairs: Pairs) -> Figures | None:
    """Return distances to the same `pairs` held-out drawings, of as many pictures each; or None.

    "drawings" is the distance of the drawings that generation aimed at: what a perfect model would score.
    """
    if len(pairs) < 2:
        return None
    found: Figures = {}
    spare = store.readings("drawings-spare")
    for name in ("drawings-targets", "drawings-reconstructed"):
        part = store.readings(name)
        if part is not None and spare is not None and len(part) >= len(pairs) <= len(spare):
            distance = frechet_distance(part.features[: len(pairs)], spare.features[: len(pairs)])
            found[name.removeprefix("drawings-")] = distance
    for name, setting in MAIN_SETTINGS.items():
        kept = complete(store, setting, len(pairs))
        if kept is not None and spare is not None:
            found[name] = frechet_distance(kept.features, spare.features[: len(pairs)])
    return {"pictures": len(pairs), "distance": found} if found else None


def complete(store: Store, setting: Setting, count: int) -> Readings | None:
    """Return the readings of the first `count` pairs, or None while some are missing."""
    kept = store.readings(setting)
    return kept.first(count) if kept is not None and len(kept) >= count else None


def _scores(kept: Readings, pairs: Pairs, names: Sequence[str]) -> Figures:
    return _with_means(by_attribute(kept.read, pairs.labels[: len(kept)], names))


def _with_means(scores: dict[str, float]) -> Figures:
    return {
        "identity": mean_of(scores, IDENTITY_BAR),
        "prompt": mean_of(scores, PROMPT_BAR),
        "by_attribute": scores,
    }
