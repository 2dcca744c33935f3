"""Write the report as Markdown, and put it between the markers of the model card."""

from collections.abc import Sequence
from typing import Any

BEGIN, END = "<!-- quality:begin -->", "<!-- quality:end -->"
_COLUMNS = {
    "drawings": "drawings",
    "reference": "reference",
    "neutral": "neutral reference",
    "text": "text alone",
    "unscaled": "scale 0",
    "chance": "chance",
}
_AXES = {"ip_adapter_scale": "IP-Adapter scale", "guidance_scale": "guidance", "steps": "steps"}
_SETS = {
    "targets": "the drawings that were asked for (the least possible)",
    "reconstructed": "those drawings through the VAE",
    "reference": "generated, reference in another scene",
    "neutral": "generated, neutral reference",
    "text": "generated, text alone",
    "unscaled": "generated, scale 0",
}


class MarkerError(ValueError):
    """Say that a document has one of the two markers, or both the wrong way round."""


def insert(document: str, fragment: str) -> str:
    """Return the document with `fragment` between the markers in place of what was there.

    A document without markers gets them at its end. Raises MarkerError when there is no telling where the
    fragment goes.
    """
    counts = document.count(BEGIN), document.count(END)
    block = f"{BEGIN}\n\n{fragment.strip()}\n\n{END}"
    if counts == (0, 0):
        return f"{document.rstrip()}\n\n{block}\n" if document.strip() else f"{block}\n"
    if counts != (1, 1) or document.index(BEGIN) > document.index(END):
        raise MarkerError(f"{BEGIN} and {END} must each stand once, in this order")
    before, after = document.split(BEGIN)[0], document.split(END)[1]
    return f"{before}{block}{after}"


def fragment(report: dict[str, Any], images: str) -> str:
    """Return the report as Markdown; `images` is the folder of the pictures as the document links to it."""
    main = report["main_setting"]
    opening = (
        f"Measured by `make quality` on held-out people in random scenes, nothing picked by hand: "
        f"pair *n* is generated from seed *n* with scale {main['ip_adapter_scale']:g}, {main['steps']} "
        f"{main['sampler'].upper()} steps, guidance {main['guidance_scale']:g}, by Limner's own engine. An attribute "
        "counts when a separate network, the reader, reads it from the picture as it was asked for. The reader "
        "shares no weights with the model; both were trained on the same drawings."
    )
    parts = [opening]
    if "main" in report:
        parts.append(_main(report["main"], report))
    if "grid" in report:
        parts.append(_grid(report["grid"], report["grid_pairs"], images))
    if "frechet" in report:
        parts.append(_frechet(report["frechet"]))
    if "vae" in report:
        parts.append(_vae(report["vae"], images))
    if "sheets" in report:
        parts += [f"![{name}]({images}/{name})" for name in report["sheets"]["files"]]
    missing = [name for name in ("main", "grid", "vae", "sheets") if name not in report]
    if missing:
        parts.append(f"Not measured yet on these weights: {', '.join(missing)}.")
    return "\n\n".join(parts) + "\n"


def _main(figures: dict[str, Any], report: dict[str, Any]) -> str:
    columns = {key: title for key, title in _COLUMNS.items() if key in figures}
    identity, prompt = report["identity_attributes"], report["prompt_attributes"]
    names = list(figures["reference"]["by_attribute"])
    others = [name for name in names if name not in {*identity, *prompt}]
    rows = []
    for key, title, members in (("identity", "who", identity), ("prompt", "scene", prompt)):
        rows.append([f"**{title}, mean**", *(f"**{figures[c][key]:.1%}**" for c in columns)])
        rows += [[name, *(f"{figures[c]['by_attribute'][name]:.1%}" for c in columns)] for name in members]
    rows += [
        [f"{name} (in no mean)", *(f"{figures[c]['by_attribute'][name]:.1%}" for c in columns)]
        for name in others
    ]
    error = figures["reference"]["identity_standard_error"]
    gap = figures["neutral_minus_elsewhere_points"]["identity"]
    return (
        _table(["attribute", *columns.values()], rows)
        + f"\n\n{report['pairs']} pairs. *Drawings*: what the reader reads from drawings of the very pairs, so its "
        "own ceiling. *Reference*: the person drawn in another random scene. *Neutral reference*: drawn in the "
        f"plain scene of the shipped portraits; {gap:+.1f} points for who. *Text alone*: the caption describes the "
        "person, no reference. *Scale 0*: nothing says who. *Chance*: the pictures of scale 0 against the labels "
        f"of all other pairs. Standard error of the mean for who, reference: at least {100 * error:.1f} points."
    )


def _grid(grid: dict[str, Any], count: int, images: str) -> str:
    parts = [
        f"One setting varied at a time, {count} pairs each:",
        f"![accuracy along each axis]({images}/curves.png)",
    ]
    for axis, points in grid.items():
        header = [_AXES.get(axis, axis), *(f"{point['value']:g}" for point in points)]
        rows = [
            [title, *(f"{point[key]:.1%}" for point in points)]
            for key, title in (("identity", "who"), ("prompt", "scene"))
        ]
        parts.append(_table(header, rows))
    return "\n\n".join(parts)


def _frechet(figures: dict[str, Any]) -> str:
    count, distances = figures["pictures"], figures["distance"]
    rows = [[title, f"{distances[key]:.3f}"] for key, title in _SETS.items() if key in distances]
    return (
        f"Frechet distance in the reader's feature space of {count} pictures to {count} other held-out drawings of "
        "the same people (not FID: other features, so it compares with nothing but itself):\n\n"
        + _table(["pictures", "distance"], rows)
    )


def _vae(figures: dict[str, Any], images: str) -> str:
    rows = [[name, f"{value:.2f}"] for name, value in figures["psnr_db"].items()]
    return (
        f"The VAE gives {figures['pictures']} held-out drawings back with this mean PSNR, by rendering style:\n\n"
        + _table(["drawings", "dB"], rows)
        + f"\n\n![eyes and glasses through the VAE]({images}/eyes.png)"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
