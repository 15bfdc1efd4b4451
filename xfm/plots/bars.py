"""A score of each class under several representations: dots with error bars (Cleveland and McGill 1984)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xfm.core.report import Figure
from xfm.plots.axes import GREY, GRID, INK, bottom_line, draw_legend, look, new_axes, save_plot, set_title, shorten

MOST_SHOWN = 60  # classes
STRIPE = "#f4f6f8"


@dataclass(frozen=True, slots=True)
class Bars:
    """One representation."""

    name: str  # in the legend
    values: Sequence[float]  # one number a class; NaN is not drawn
    low: Sequence[float] | None = None  # lower ends of the intervals, or None
    high: Sequence[float] | None = None  # upper ends, or None


def draw_bars(
    output: Path,
    name: str,
    classes: Sequence[str],
    support: Sequence[int],
    bars: Sequence[Bars],
    *,
    metric: str,
    caption: str,
    title: str = "",
    noun: str = "cells",
) -> Figure:
    """Writes plots/NAME.png and plots/NAME.csv below `output`: the class with most cells on top.

    Args:
        classes, support: K names and their cells; the 60 largest are drawn.
        bars: what to compare, at least one; legible up to four.
        noun: what the support counts, in the CSV.

    Raises:
        ValueError: nothing to compare, no class, or lists that differ in length.
    """
    lengths = {len(part) for one in bars for part in (one.values, one.low, one.high) if part is not None}
    if not bars or not classes or lengths | {len(support)} != {len(classes)}:
        found = sorted(lengths | {len(support)})
        raise ValueError(f"{len(bars)} rows of dots for {len(classes)} classes hold {found} numbers; give one a class")
    order = sorted(range(len(classes)), key=lambda index: (-support[index], classes[index]))
    rows = [
        [classes[index], support[index], one.name, *(part and part[index] for part in (one.values, one.low, one.high))]
        for index in order
        for one in bars
    ]
    canvas = _draw([(classes[index], support[index]) for index in order[:MOST_SHOWN]], order, bars, metric, title)
    caption += f" The {MOST_SHOWN} largest of {len(classes)} classes." if len(order) > MOST_SHOWN else ""
    head = ["class", noun, "series", metric, "low", "high"]
    return save_plot(canvas, output, name, head, rows, caption=caption, alt=_in_words(classes, order, bars, metric))


def _draw(rows: Sequence[tuple[str, int]], order: Sequence[int], bars: Sequence[Bars], metric: str, title: str) -> Any:
    line = max(0.2, (0.115 if len(rows) <= 30 else 0.075) * len(bars) + 0.04)  # inches a class
    tall = line * len(rows)
    canvas, axes = new_axes(6.2, tall + 1.2, (0.4, 0.5 / (tall + 1.2), 0.56, tall / (tall + 1.2)))
    for place in range(0, len(rows), 2):
        axes.axhspan(place - 0.5, place + 0.5, color=STRIPE, linewidth=0, zorder=0)
    for number, one in enumerate(bars):
        shift = (number - (len(bars) - 1) / 2) * 0.78 / len(bars)
        _draw_one(axes, one, order[: len(rows)], shift, *look(number))
    finite = [end for one in bars for part in (one.values, one.low) for end in part or () if math.isfinite(end)]
    axes.set_xlim(math.floor(10 * min(finite, default=0)) / 10 - 0.02, max(1.02, axes.dataLim.x1))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    font = 9 if len(rows) <= 30 else 7.5
    words = [f"{shorten(name, 38)} ({cells:,})" for name, cells in rows]
    axes.set_yticks(range(len(rows)), words, fontsize=font, parse_math=False)
    axes.tick_params(axis="y", colors=INK, length=0, pad=6)
    axes.tick_params(axis="x", colors=GREY, labelsize=9, length=0)
    axes.grid(axis="x", color=GRID, linewidth=0.9)
    axes.set_axisbelow(True)
    axes.set_xlabel(metric, color=INK, fontsize=10, parse_math=False)
    bottom_line(axes)
    draw_legend(
        axes, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(bars), fontsize=9, handletextpad=0.2,
        columnspacing=1.4, borderaxespad=0.2,
    )  # fmt: skip
    if title:
        set_title(axes, title, pad=30)
    return canvas


def _draw_one(axes: Any, one: Bars, order: Sequence[int], shift: float, colour: str, marker: str) -> None:
    heights = [place + shift for place in range(len(order))]
    if one.low is not None and one.high is not None:
        ends = [one.low[index] for index in order], [one.high[index] for index in order]
        axes.hlines(heights, *ends, color=colour, linewidth=1.6, alpha=0.55, zorder=2)
    values = [one.values[index] for index in order]
    dots = {"markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.6}
    axes.plot(values, heights, marker, color=colour, label=shorten(one.name, 30), clip_on=False, zorder=3, **dots)


def _in_words(classes: Sequence[str], order: Sequence[int], bars: Sequence[Bars], metric: str) -> str:
    """For those who do not see the picture: where each does best and worst."""
    words = []
    for one in bars:
        known = [index for index in order if math.isfinite(one.values[index])]
        if known:
            best, worst = (pick(known, key=lambda index: one.values[index]) for pick in (max, min))
            ends = [f"{classes[index]} ({one.values[index]:.3g})" for index in (best, worst)]
            words.append(f"{one.name}: highest for {ends[0]}, lowest for {ends[1]}.")
    return f"{metric} of {len(classes)} classes. " + " ".join(words)
