"""Accuracy against confidence: points beside the diagonal, and below them how many rows are that sure.

The diagram of DeGroot and Fienberg, The Statistician 1983, as Guo et al., ICML 2017, draw it for networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfm.core.report import Figure
from xfm.plots.axes import COLOURS, GREY, GRID, draw_legend, dress, look, new_axes, save_plot, shorten


@dataclass(frozen=True, slots=True)
class Reliable:
    """One classifier, by bins of its confidence."""

    name: str  # in the legend
    low: NDArray[np.float64]  # low, high: (M,) ends of the bins
    high: NDArray[np.float64]
    rows: NDArray[np.int64]  # (M,) how many rows each holds
    confidence: NDArray[np.float64]  # confidence, accuracy: (M,) means; NaN in an empty bin
    accuracy: NDArray[np.float64]


def draw_reliability(
    output: Path, name: str, classifiers: Sequence[Reliable], *, caption: str, title: str = "", noun: str = "rows"
) -> Figure:
    """Writes plots/NAME.png and plots/NAME.csv below `output`.

    Args:
        classifiers: at least one, with the same bins; legible up to three.

    Raises:
        ValueError: nothing to draw, or no row in any bin.
    """
    if not classifiers or not any(one.rows.sum() for one in classifiers):
        raise ValueError(f"a reliability diagram needs rows; {len(classifiers)} classifiers were given")
    rows = [
        [one.name, *values]
        for one in classifiers
        for values in zip(one.low, one.high, map(int, one.rows), one.confidence, one.accuracy, strict=True)
    ]
    head = ["classifier", "low", "high", noun, "mean confidence", "accuracy"]
    canvas = _draw(classifiers, title, noun)
    return save_plot(canvas, output, name, head, rows, caption=caption, alt=_in_words(classifiers))


def _draw(classifiers: Sequence[Reliable], title: str, noun: str) -> Any:
    canvas, axes = new_axes(5.6, 6.0, (0.13, 0.34, 0.82, 0.58))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    along = {"rotation": 45, "rotation_mode": "anchor", "transform_rotates_text": True}
    axes.text(0.03, 0.045, "as often right as said", color=GREY, fontsize=9, va="bottom", **along)
    for number, one in enumerate(classifiers):
        colour, marker = look(number)
        held = one.rows > 0
        sure, right = one.confidence[held], one.accuracy[held]
        axes.vlines(sure, sure, right, color=colour, linewidth=1.4, alpha=0.45)
        dots = {"marker": marker, "markersize": 6, "markeredgecolor": "white"}
        axes.plot(sure, right, color=colour, linewidth=1.6, zorder=3, label=shorten(one.name, 40), **dots)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xticks(np.linspace(0, 1, 6), [])
    dress(axes, x="", y="accuracy", title=title)
    draw_legend(axes, loc="upper left", fontsize=9)
    _draw_counts(canvas, classifiers, noun)
    return canvas


def _draw_counts(canvas: Any, classifiers: Sequence[Reliable], noun: str) -> None:
    axes = canvas.add_axes((0.13, 0.1, 0.82, 0.2))
    for number, one in enumerate(classifiers):
        width = (one.high - one.low) * 0.86 / len(classifiers)
        left = one.low + (one.high - one.low) * 0.07 + number * width
        share = one.rows / max(1, int(one.rows.sum()))
        axes.bar(left, share, width, align="edge", color=COLOURS[number % len(COLOURS)], alpha=0.8, linewidth=0)
    axes.set_xlim(0, 1)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.grid(axis="y", color=GRID, linewidth=0.9)
    dress(axes, x="confidence: probability of the predicted class", y=f"share of {noun}")


def _in_words(classifiers: Sequence[Reliable]) -> str:
    """For those who do not see the picture."""
    words = []
    for one in classifiers:
        held = one.rows > 0
        right = float((one.rows[held] * one.accuracy[held]).sum() / one.rows.sum())
        sure = float((one.rows[held] * one.confidence[held]).sum() / one.rows.sum())
        side = "more" if sure > right else "less"
        words.append(f"{one.name}: right {right:.3g} of the time at a mean confidence of {sure:.3g}, {side} sure than "
                     "right.")  # fmt: skip
    return " ".join(words)
