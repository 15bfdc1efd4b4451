"""How a classifier errs: which class is taken for which, and how often it is right when it is so sure.

Confusion: truth on rows, each row shaded by its own shares. Classes are ordered by average-linkage clustering of how
often two are mistaken for each other, with leaves turned so that neighbours are alike (Bar-Joseph, Gifford, Jaakkola
2001): errors within a lineage then stand as blocks beside the diagonal. How frequent a class is stands beside its name,
so that sorting by it would say nothing new. Reliability: the diagram of DeGroot and Fienberg, The Statistician 1983, as
Guo et al., ICML 2017, draw it for networks: points beside the diagonal, and below them how many rows are that sure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfm.core.report import Figure
from xfm.plots.axes import GREY, INK, draw_legend, draw_scale, dress, look, new_axes, save_plot, set_title, shorten

MOST_COUNTED = 20  # classes up to which cells hold their counts
MOST_SHOWN = 60
LETTERS = 44  # of a name
WORST = 3  # mistakes named in the words for those who do not see the picture
Counts = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Reliable:
    """One classifier, by bins of its confidence."""

    name: str  # in the legend
    low: NDArray[np.float64]  # low, high: (M,) ends of the bins
    high: NDArray[np.float64]
    rows: NDArray[np.int64]  # (M,) how many rows each holds
    confidence: NDArray[np.float64]  # confidence, accuracy: (M,) means; NaN in an empty bin
    accuracy: NDArray[np.float64]


def draw_confusion(
    output: Path,
    name: str,
    counts: Counts,
    classes: Sequence[str],
    *,
    caption: str,
    title: str = "",
    noun: str = "cells",
) -> Figure:
    """Writes plots/NAME.png and plots/NAME.csv (all counts; true classes in rows) below `output`.

    Args:
        counts: (K, K) cells by true and predicted class. A class with neither is left out of the picture; beyond 60,
            the most frequent ones are shown and the others gathered.

    Raises:
        ValueError: counts of another shape, negative, or all zero.
    """
    counts = np.asarray(counts)
    if counts.shape != (len(classes), len(classes)) or counts.min(initial=0) < 0 or counts.sum() == 0:
        found = f"shape {counts.shape}, sum {counts.sum()}"
        raise ValueError(f"a confusion matrix of {len(classes)} classes needs their cells by truth and guess; {found}")
    canvas = _draw_confusion(*in_order(*gather(counts, classes)), title, noun)
    rows = ([label, *map(int, row)] for label, row in zip(classes, counts, strict=True))
    alt = _confusion_in_words(counts, classes, noun)
    return save_plot(canvas, output, name, ["true class", *classes], rows, caption=caption, alt=alt, wide=True)


def gather(counts: Counts, classes: Sequence[str], most: int = MOST_SHOWN) -> tuple[Counts, list[str]]:
    """The classes that occur, most frequent in truth first; beyond `most`, the others as one more."""
    truth, guessed = counts.sum(axis=1), counts.sum(axis=0)
    order = [int(index) for index in np.lexsort((-guessed, -truth)) if truth[index] or guessed[index]]
    sorted_counts = counts[np.ix_(order, order)]
    names = [classes[index] for index in order]
    if len(names) <= most:
        return sorted_counts, names
    place = np.minimum(np.arange(len(names)), most)
    gathered = np.zeros((most + 1, most + 1), dtype=counts.dtype)
    np.add.at(gathered, (place[:, None], place[None, :]), sorted_counts)
    return gathered, [*names[:most], f"other ({len(names) - most:,} classes)"]


def in_order(counts: Counts, names: list[str], last: int = MOST_SHOWN) -> tuple[Counts, list[str]]:
    """Classes that are mistaken for each other side by side, the more frequent end first; beyond `last` as they are."""
    first = min(len(names), last)
    if first < 3:
        return counts, names
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    share = _shares(counts, 0.0)[:first, :first]
    distance = 1 - (share + share.T) / 2
    np.fill_diagonal(distance, 0.0)
    leaves = leaves_list(linkage(squareform(distance, checks=False), "average", optimal_ordering=True))
    truth = counts.sum(axis=1)[leaves]
    half = first // 2
    if truth[:half].sum() < truth[-half:].sum():
        leaves = leaves[::-1]
    order = [*map(int, leaves), *range(first, len(names))]
    return counts[np.ix_(order, order)], [names[index] for index in order]


def _shares(counts: Counts, empty: float) -> NDArray[np.float64]:
    """Each row divided by its sum; `empty` where there is no cell."""
    totals = counts.sum(axis=1, keepdims=True)
    return np.where(totals > 0, counts / np.maximum(totals, 1), empty)


def _draw_confusion(counts: Counts, names: Sequence[str], title: str, noun: str) -> Any:
    from matplotlib import colormaps
    from matplotlib.ticker import PercentFormatter

    number = len(names)
    cell = float(np.clip(5.4 / number, 0.115, 0.62))
    side = cell * number
    font = float(np.clip(cell * 72 * 0.62, 5.2, 9.0))
    part = side / (side + 2.5)
    canvas, axes = new_axes(side + 2.5, side + 2.5, (0.3 * (1 - part), 0.6 * (1 - part), part, part))
    shares = _shares(counts, np.nan)
    blues = colormaps["Blues"].with_extremes(bad="#eceff2")
    picture = axes.imshow(np.ma.masked_invalid(shares), cmap=blues, vmin=0, vmax=1)
    truth = counts.sum(axis=1)
    rows = [f"{shorten(name, LETTERS)} ({total:,})" for name, total in zip(names, truth, strict=True)]
    axes.set_yticks(range(number), rows, fontsize=font, parse_math=False)
    turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if number <= MOST_COUNTED else {"rotation": 90}
    words = [shorten(name, LETTERS) for name in names]
    axes.set_xticks(range(number), words, fontsize=font, parse_math=False, **turned)
    axes.tick_params(colors=INK, length=0, pad=4)
    axes.set_xlabel("predicted class", color=GREY, fontsize=9)
    axes.set_ylabel(f"true class ({noun})", color=GREY, fontsize=9)
    if title:
        set_title(axes, title, 11, 8)
    axes.spines[:].set_color("#c3c9d0")
    if number <= MOST_COUNTED:
        letters = len(f"{counts.max():,}")
        _write_counts(axes, counts, shares, min(font, cell * 72 * min(0.36, 1.35 / letters)))
    box = axes.get_position()
    inch = box.width / side
    place = (box.x1 + 0.14 * inch, box.y1 - min(1.6, side) * inch, 0.1 * inch, min(1.6, side) * inch)
    scale = draw_scale(canvas, picture, place, "of the true class", format=PercentFormatter(1.0, decimals=0))
    scale.set_ticks([0, 0.5, 1])
    return canvas


def _write_counts(axes: Any, counts: Counts, shares: NDArray[np.float64], font: float) -> None:
    for row, column in zip(*np.nonzero(counts), strict=True):
        style = {"ha": "center", "va": "center", "color": "white" if shares[row, column] > 0.55 else INK}
        axes.text(column, row, f"{counts[row, column]:,}", fontsize=font, **style)


def _confusion_in_words(counts: Counts, classes: Sequence[str], noun: str) -> str:
    """For those who do not see the picture: how many are right, and the largest mistakes."""
    wrong = counts - np.diag(np.diagonal(counts))
    largest = np.argsort(-wrong, axis=None, kind="stable")[:WORST]
    pairs = [(int(index) // len(classes), int(index) % len(classes)) for index in largest]
    mistakes = [f"{classes[t]} as {classes[p]} ({wrong[t, p]:,})" for t, p in pairs if wrong[t, p]]
    found = f"{np.trace(counts):,} of {counts.sum():,} {noun} on the diagonal."
    return f"{found} Most often mistaken: {'; '.join(mistakes)}." if mistakes else found


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
    canvas = _draw_reliability(classifiers, title, noun)
    return save_plot(canvas, output, name, head, rows, caption=caption, alt=_reliability_in_words(classifiers))


def _draw_reliability(classifiers: Sequence[Reliable], title: str, noun: str) -> Any:
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
    _draw_share(canvas, classifiers, noun)
    return canvas


def _draw_share(canvas: Any, classifiers: Sequence[Reliable], noun: str) -> None:
    axes = canvas.add_axes((0.13, 0.1, 0.82, 0.2))
    for number, one in enumerate(classifiers):
        width = (one.high - one.low) * 0.86 / len(classifiers)
        left = one.low + (one.high - one.low) * 0.07 + number * width
        share = one.rows / max(1, int(one.rows.sum()))
        axes.bar(left, share, width, align="edge", color=look(number)[0], alpha=0.8, linewidth=0)
    axes.set_xlim(0, 1)
    axes.set_xticks(np.linspace(0, 1, 6))
    dress(axes, x="confidence: probability of the predicted class", y=f"share of {noun}")


def _reliability_in_words(classifiers: Sequence[Reliable]) -> str:
    """For those who do not see the picture."""
    words = []
    for one in classifiers:
        held = one.rows > 0
        right = float((one.rows[held] * one.accuracy[held]).sum() / one.rows.sum())
        sure = float((one.rows[held] * one.confidence[held]).sum() / one.rows.sum())
        said = f"right {right:.3g} of the time at a mean confidence of {sure:.3g}"
        words.append(f"{one.name}: {said}, {'more' if sure > right else 'less'} sure than right.")
    return " ".join(words)
