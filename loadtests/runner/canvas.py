"""The canvas: matplotlib's figures as inline SVG whose colours follow the page, dark or light."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from loadtests.runner.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Readable on white as on near-black.
COLOURS = ("#3b82c4", "#d9772b", "#3fa060", "#b0539f", "#c9a227", "#d0483e", "#7a7fd0", "#8a8a8a")
INK = "#010203"
"""Stands for the page's text colour in what matplotlib writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A figure with its caption: what it shows, and how to read it.

    `draw` puts it on the axes, or returns why there is nothing to show.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Axes, Report], str | None]

    def html(self, report: Report) -> str:
        """Draw it; where there is nothing to show, say why."""
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot

        with pyplot.rc_context(_style()):
            figure, axes = pyplot.subplots(figsize=(7.2, 3.3), layout="constrained")
            if (why := self.draw(axes, report)) is not None:
                pyplot.close(figure)
                return f"<p>{escape(self.title)}: {escape(why)}.</p>"
            if axes.get_legend_handles_labels()[1]:
                axes.legend(frameon=False, fontsize=8)
            out = io.StringIO()
            figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
            pyplot.close(figure)
        svg = _inline(out.getvalue(), self.name, self.title)
        caption = f"<figcaption>{escape(self.caption)}</figcaption>"
        return f"<figure><h2>{escape(self.title)}</h2>{svg}{caption}</figure>"


def _style() -> dict[Any, Any]:
    from matplotlib.rcsetup import cycler

    ink = dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    )
    return {
        **ink,
        "svg.fonttype": "none",
        "svg.hashsalt": "limner",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=COLOURS),
        "grid.color": "#808080",
        "grid.alpha": 0.25,
        "lines.linewidth": 1.6,
    }


def _inline(svg: str, name: str, title: str) -> str:
    """Make a file of matplotlib's part of a page: no prologue, ids of its own, the page's ink and fonts."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1, flags=re.DOTALL)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", svg)
    return svg.replace(INK, "currentColor")
