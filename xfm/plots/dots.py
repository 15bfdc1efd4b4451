"""Rows of dots with whiskers (Cleveland and McGill 1984): classes under several representations, and a leaderboard.

The intervals of rows judged on the same cells move together, so two that overlap may still differ: the table holds the
paired differences. Baselines are grey squares, layers and combinations of layers coloured, as in the layer curve.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from xfm.core.report import Figure
from xfm.plots.axes import COLOURS, GREY, GRID, INK, draw_legend, dress, look, new_axes, save_plot, shorten

MOST_CLASSES, MOST_ROWS = 60, 40
STRIPE = "#f4f6f8"
KINDS = {"layer": (COLOURS[0], "o"), "combination": (COLOURS[1], "D"), "baseline": (GREY, "s")}
ROW_INCHES, FRAME_INCHES = 0.3, 1.35
NAME_LENGTH = 44  # characters


@dataclass(frozen=True, slots=True)
class Bars:
    """One representation."""

    name: str  # in the legend
    values: Sequence[float]  # one number a class; NaN is not drawn
    low: Sequence[float] | None = None  # lower ends of the intervals, or None
    high: Sequence[float] | None = None  # upper ends, or None


@dataclass(frozen=True, slots=True)
class Dot:
    """One row."""

    name: str  # shown at its left
    kind: str  # layer, combination, baseline or anything else
    value: float  # where the dot stands
    low: float | None = None  # low, high: ends of the whisker, or None
    high: float | None = None
    values: Sequence[float] = ()  # of single seeds, drawn small and faint where there are several


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
    names = [f"{shorten(classes[index], 38)} ({support[index]:,})" for index in order[:MOST_CLASSES]]
    canvas = _draw_bars(names, order, bars, metric, title)
    caption += f" The {MOST_CLASSES} largest of {len(classes)} classes." if len(order) > MOST_CLASSES else ""
    head = ["class", noun, "series", metric, "low", "high"]
    alt = f"{metric} of {len(classes)} classes. {_in_words(classes, order, bars)}"
    return save_plot(canvas, output, name, head, rows, caption=caption, alt=alt)


def draw_leaderboard(
    output: Path,
    name: str,
    dots: Sequence[Dot],
    *,
    metric: str,
    caption: str,
    title: str = "",
    higher_is_better: bool = True,
    alt: str = "",
) -> Figure:
    """Writes plots/NAME.png and plots/NAME.csv below `output`; the picture has the first 40 rows.

    Args:
        dots: rows from top to bottom, at least one.
        higher_is_better: said on the axis; rows far on the worse side become arrows at its edge.

    Raises:
        ValueError: no row.
    """
    if not dots:
        raise ValueError("a leaderboard needs at least one row; none was given")
    lines = [[n, d.name, d.kind, d.value, d.low, d.high, " ".join(map(repr, d.values))] for n, d in enumerate(dots, 1)]
    shown = dots[:MOST_ROWS]
    edge = far_edge(shown, higher_is_better=higher_is_better)
    canvas = _draw_rows(shown, metric, title, edge, higher_is_better=higher_is_better)
    if edge is not None:
        caption += " Arrows: beyond the axis."
    if len(dots) > MOST_ROWS:
        caption += f" The first {MOST_ROWS} of {len(dots)} rows; all are in the table."
    head = ["row", "name", "kind", metric, "low", "high", "seeds"]
    return save_plot(canvas, output, name, head, lines, caption=caption, alt=alt)


def far_edge(dots: Sequence[Dot], *, higher_is_better: bool) -> float | None:
    """Where the axis ends, so that a row that fails altogether does not press the others together.

    It is the median, less three times what the best row is better than it, and further where the whisker of a row
    inside needs it; None where no row is worse than that.
    """
    sign = 1 if higher_is_better else -1
    values = [sign * dot.value for dot in dots]
    edge = 4 * median(values) - 3 * max(values)
    if min(values) >= edge or max(values) == median(values):
        return None
    inside = [dot for dot, value in zip(dots, values, strict=True) if value >= edge]
    ends = [sign * end for dot in inside for end in (dot.low, dot.high, *dot.values) if end is not None]
    return sign * min([edge, *ends])


def _draw_bars(names: Sequence[str], order: Sequence[int], bars: Sequence[Bars], metric: str, title: str) -> Any:
    is_short = len(names) <= 30
    line = max(0.2, (0.115 if is_short else 0.075) * len(bars) + 0.04)  # inches a class
    tall = line * len(names)
    canvas, axes = new_axes(6.2, tall + 1.2, (0.4, 0.5 / (tall + 1.2), 0.56, tall / (tall + 1.2)))
    for place in range(0, len(names), 2):
        axes.axhspan(place - 0.5, place + 0.5, color=STRIPE, linewidth=0, zorder=0)
    for number, one in enumerate(bars):
        shift = (number - (len(bars) - 1) / 2) * 0.78 / len(bars)
        _draw_bar(axes, one, order[: len(names)], shift, *look(number))
    finite = [end for one in bars for part in (one.values, one.low) for end in part or () if math.isfinite(end)]
    axes.set_xlim(math.floor(10 * min(finite, default=0)) / 10 - 0.02, max(1.02, axes.dataLim.x1))
    axes.set_ylim(len(names) - 0.5, -0.5)
    _dress(axes, names, 9 if is_short else 7.5, x=metric, title=title, title_pad=30)
    axes.tick_params(axis="x", labelsize=9, pad=3.5)
    axes.xaxis.label.set_size(10)
    draw_legend(
        axes, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(bars), fontsize=9, handletextpad=0.2,
        columnspacing=1.4, borderaxespad=0.2,
    )  # fmt: skip
    return canvas


def _draw_bar(axes: Any, one: Bars, order: Sequence[int], shift: float, colour: str, marker: str) -> None:
    heights = [place + shift for place in range(len(order))]
    if one.low is not None and one.high is not None:
        ends = [one.low[index] for index in order], [one.high[index] for index in order]
        axes.hlines(heights, *ends, color=colour, linewidth=1.6, alpha=0.55, zorder=2)
    values = [one.values[index] for index in order]
    dots = {"markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.6}
    axes.plot(values, heights, marker, color=colour, label=shorten(one.name, 30), clip_on=False, zorder=3, **dots)


def _in_words(classes: Sequence[str], order: Sequence[int], bars: Sequence[Bars]) -> str:
    """For those who do not see the picture: where each does best and worst."""
    words = []
    for one in bars:
        known = [index for index in order if math.isfinite(one.values[index])]
        if known:
            best, worst = (pick(known, key=lambda index: one.values[index]) for pick in (max, min))
            ends = [f"{classes[index]} ({one.values[index]:.3g})" for index in (best, worst)]
            words.append(f"{one.name}: highest for {ends[0]}, lowest for {ends[1]}.")
    return " ".join(words)


def _draw_rows(dots: Sequence[Dot], metric: str, title: str, edge: float | None, *, higher_is_better: bool) -> Any:
    height = FRAME_INCHES + ROW_INCHES * len(dots)
    canvas, axes = new_axes(7.4, height, (0.4, 0.75 / height, 0.5, 1 - FRAME_INCHES / height))
    for at, dot in enumerate(dots):
        colour, marker = KINDS.get(dot.kind, KINDS["layer"])
        style = {"markeredgecolor": "white", "markeredgewidth": 0.8, "zorder": 4, "clip_on": False}
        if edge is not None and (dot.value < edge if higher_is_better else dot.value > edge):
            axes.plot([edge], [at], "<" if higher_is_better else ">", color=colour, markersize=8, **style)
            continue
        if dot.low is not None and dot.high is not None:
            axes.plot([dot.low, dot.high], [at, at], color=colour, linewidth=2.2, alpha=0.55, solid_capstyle="butt")
        if len(dot.values) > 1:
            ticks = {"markersize": 9, "markeredgewidth": 1.1, "alpha": 0.8}
            axes.plot(dot.values, [at] * len(dot.values), "|", color=colour, **ticks)
        axes.plot([dot.value], [at], marker, color=colour, markersize=7.5, **style)
    if edge is not None:
        axes.set_xlim(**{"left" if higher_is_better else "right": edge})
    axes.set_ylim(len(dots) - 0.45, -0.55)
    label = f"{metric} ({'higher' if higher_is_better else 'lower'} is better)"
    _dress(axes, [shorten(dot.name, NAME_LENGTH) for dot in dots], 9.5, x=label, title=title)
    for at, dot in enumerate(dots):
        text = f"{dot.value:.3f}" if abs(dot.value) < 100 else f"{dot.value:,.0f}"
        style = {"color": KINDS.get(dot.kind, KINDS["layer"])[0], "fontsize": 9.5, "va": "center"}
        axes.annotate(text, (1.02, at), xycoords=("axes fraction", "data"), annotation_clip=False, **style)
    return canvas


def _dress(axes: Any, names: Sequence[str], size: float, *, x: str, title: str, title_pad: float = 12) -> None:
    """Names at the left, one a row, and a grid of upright lines."""
    axes.set_yticks(range(len(names)), names, parse_math=False)
    dress(axes, x=x, y="", title=title, title_pad=title_pad)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID, linewidth=0.9)
    axes.tick_params(axis="y", labelsize=size, labelcolor=INK)
