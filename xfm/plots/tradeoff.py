"""What is kept against what still leaks: a score of the label over the score of a new probe of the attribute.

Up and to the left is better. Points of one series that state a strength are joined in its order: the curve that says
what taking the attribute out costs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xfm.core.report import Estimate, Figure
from xfm.plots.axes import GREY, draw_legend, dress, look, new_axes, save_plot, shorten
from xfm.plots.panels import move_apart

FAR = 14  # pixels between a point and its name, from which a line joins them


@dataclass(frozen=True, slots=True)
class TradeoffPoint:
    """One model."""

    name: str  # written beside it, e.g. "0.1" for a strength or "logistic regression".
    score: Estimate | float  # how well the label is predicted, with its interval where there is one
    leakage: Estimate | float  # score of a new probe of the attribute
    # of what takes the attribute out; points of a series that have one are joined in its order. None for a point that
    # nothing is joined to.
    strength: float | None = None
    series: str = ""  # points of one series share a colour and a line


def draw_tradeoff(
    output: Path,
    points: Sequence[TradeoffPoint],
    *,
    score: str,
    leakage: str,
    name: str = "tradeoff",
    chance: float | None = 0.5,
    caption: str = "",
    title: str = "",
) -> Figure:
    """Writes plots/NAME.png and plots/NAME.csv below `output`.

    Args:
        score, leakage: labels, e.g. "donor macro F1 (test)", "AUROC of a fresh probe for sex".
        chance: leakage of a representation without the attribute, a dashed line; None for none.

    Raises:
        ValueError: no point, or a number that is not finite.
    """
    if not points or not all(math.isfinite(n) for p in points for n in (*_ends(p.score), *_ends(p.leakage))):
        raise ValueError(f"a trade-off of {len(points)} points needs at least one, with finite numbers only")
    head = ["name", "series", "strength"]
    head += [f"{axis}{end}" for axis in (score, leakage) for end in ("", " low", " high")]
    rows = ([p.name, p.series, p.strength, *_ends(p.score), *_ends(p.leakage)] for p in points)
    canvas = _draw(points, score, leakage, chance, title)
    words = "; ".join(
        f"{p.series} {p.name}: {_ends(p.score)[0]:.3g} at {_ends(p.leakage)[0]:.3g}".strip() for p in points
    )
    caption = caption or f"{score} against {leakage}: up and to the left is better. Whiskers are intervals."
    alt = f"{score} at {leakage} of {len(points)} points: {words}."
    return save_plot(canvas, output, name, head, rows, caption=caption, alt=alt)


def _ends(number: Estimate | float) -> tuple[float, float, float]:
    """Value, low, high."""
    if not isinstance(number, Estimate):
        return (number,) * 3
    return (
        number.value,
        number.value if number.low is None else number.low,
        number.value if number.high is None else number.high,
    )


def _draw(points: Sequence[TradeoffPoint], score: str, leakage: str, chance: float | None, title: str) -> Any:
    canvas, axes = new_axes(7.0, 4.6, (0.11, 0.135, 0.85, 0.765))
    if chance is not None:
        axes.axvline(chance, color=GREY, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    series = list(dict.fromkeys(point.series for point in points))
    for number, one in enumerate(series):
        _series(axes, [p for p in points if p.series == one], one, number)
    axes.margins(0.12)
    axes.set_xlim(axes.get_xlim())  # final: names are placed in pixels
    axes.set_ylim(axes.get_ylim())
    dress(axes, x=leakage, y=score, title=title)
    axes.grid(axis="x", color="#e4e7eb", linewidth=0.9)
    if chance is not None:
        place = {"xy": (chance, 0.0), "xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        axes.annotate("chance", xytext=(4, 4), color=GREY, fontsize=8.5, **place)
    if len(series) > 1:
        draw_legend(axes, fontsize=8.5, loc="best")
    _write_names(axes, points, [look(series.index(point.series))[0] for point in points])
    return canvas


def _write_names(axes: Any, points: Sequence[TradeoffPoint], colours: Sequence[str]) -> None:
    """Beside each point its name, moved to where no other name stands, with a thin line back where it is far."""
    at = axes.transData.transform([(_ends(point.leakage)[0], _ends(point.score)[0]) for point in points])
    texts, sizes = [], []
    for point, colour in zip(points, colours, strict=True):
        style = {"color": colour, "fontsize": 8.5, "ha": "center", "va": "center", "zorder": 5, "parse_math": False}
        text = axes.text(0, 0, shorten(point.name), **style)
        box = text.get_window_extent()
        texts.append(text)
        sizes.append((box.width + 4, box.height + 3))
    size, frame = np.array(sizes), axes.get_window_extent()
    wanted = at + np.stack([size[:, 0] / 2 + 8, size[:, 1] / 2 + 5], axis=1)
    moved = move_apart(wanted, size, np.array(frame.min), np.array(frame.max))
    back = axes.transData.inverted()
    for text, place, start, half in zip(texts, moved, at, size / 2, strict=True):
        text.set_position(back.transform(place))
        near = np.clip(start, place - half, place + half)
        if np.hypot(*(near - start)) > FAR:
            ends = back.transform(np.array([start, near]))
            axes.plot(*ends.T, color=GREY, linewidth=0.6, alpha=0.7, zorder=3)


def _series(axes: Any, points: Sequence[TradeoffPoint], name: str, number: int) -> None:
    colour, marker = look(number)
    joined = sorted((p for p in points if p.strength is not None), key=lambda p: p.strength or 0.0)
    if len(joined) > 1:
        line = [(_ends(p.leakage)[0], _ends(p.score)[0]) for p in joined]
        axes.plot(*zip(*line, strict=True), color=colour, linewidth=1.3, alpha=0.55, zorder=2)
    for place, point in enumerate(points):
        y, bottom, top = _ends(point.score)
        x, left, right = _ends(point.leakage)
        style = {"color": colour, "linewidth": 1.0, "alpha": 0.5, "zorder": 3}
        axes.plot([left, right], [y, y], **style)
        axes.plot([x, x], [bottom, top], **style)
        label = (shorten(name) or None) if place == 0 else None
        dot = {"color": colour, "markersize": 7, "markeredgecolor": "white", "linestyle": "", "zorder": 4}
        axes.plot([x], [y], marker=marker, label=label, **dot)
