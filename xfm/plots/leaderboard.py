"""Dots and whiskers: one row a representation, in the order of its leaderboard.

The intervals of rows judged on the same cells move together, so two that overlap may still differ: the table holds the
paired differences. Baselines are grey squares, layers and combinations of layers coloured, as in the layer curve.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from xfm.core.report import Figure
from xfm.plots.axes import COLOURS, GREY, GRID, INK, dress, new_axes, save_plot, shorten

KINDS = {"layer": (COLOURS[0], "o"), "combination": (COLOURS[1], "D"), "baseline": (GREY, "s")}
MOST_ROWS = 40
ROW_INCHES, FRAME_INCHES = 0.3, 1.35
NAME_LENGTH = 44  # characters


@dataclass(frozen=True, slots=True)
class Dot:
    """One row."""

    name: str  # shown at its left
    kind: str  # layer, combination, baseline or anything else
    value: float  # where the dot stands
    low: float | None = None  # low, high: ends of the whisker, or None
    high: float | None = None
    values: Sequence[float] = ()  # of single seeds, drawn small and faint where there are several


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
    canvas = _draw(shown, metric, title, edge, higher_is_better=higher_is_better)
    if edge is not None:
        caption += " Arrows: beyond the axis."
    if len(dots) > MOST_ROWS:
        caption += f" The first {MOST_ROWS} of {len(dots)} rows; all are in the table."
    head = ["row", "name", "kind", metric, "low", "high", "seeds"]
    return save_plot(canvas, output, name, head, lines, caption=caption, alt=alt)


def far_edge(dots: Sequence[Dot], *, higher_is_better: bool) -> float | None:
    """Where the axis ends, so that a row that fails altogether does not press the others together.

    Returns:
        The median, less three times what the best row is better than it, and further where the whisker of a row inside
        needs it; None where no row is worse than that.
    """
    sign = 1 if higher_is_better else -1
    values = [sign * dot.value for dot in dots]
    edge = 4 * median(values) - 3 * max(values)
    if min(values) >= edge or max(values) == median(values):
        return None
    inside = [dot for dot, value in zip(dots, values, strict=True) if value >= edge]
    ends = [sign * end for dot in inside for end in (dot.low, dot.high, *dot.values) if end is not None]
    return sign * min(edge, *ends) if ends else sign * edge


def _draw(dots: Sequence[Dot], metric: str, title: str, edge: float | None, *, higher_is_better: bool) -> Any:
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
    _names(axes, dots)
    dress(axes, x=f"{metric} ({'higher' if higher_is_better else 'lower'} is better)", y="", title=title)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID, linewidth=0.9)
    axes.tick_params(axis="y", labelsize=9.5, labelcolor=INK)
    return canvas


def _names(axes: Any, dots: Sequence[Dot]) -> None:
    """Names at the left, values at the right, first row on top."""
    axes.set_yticks(range(len(dots)), [shorten(dot.name, NAME_LENGTH) for dot in dots], parse_math=False)
    axes.set_ylim(len(dots) - 0.45, -0.55)
    for at, dot in enumerate(dots):
        text = f"{dot.value:.3f}" if abs(dot.value) < 100 else f"{dot.value:,.0f}"
        style = {"color": KINDS.get(dot.kind, KINDS["layer"])[0], "fontsize": 9.5, "va": "center"}
        axes.annotate(text, (1.02, at), xycoords=("axes fraction", "data"), annotation_clip=False, **style)
