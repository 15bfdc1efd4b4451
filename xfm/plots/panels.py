"""Pictures of cells in two dimensions: the classes they show, a square panel, its legend, and names among the points.

The most frequent classes have a colour each, the rest is gathered. The first eight colours are Okabe and Ito's (2008),
readable with every kind of colour vision. Each later one is the furthest from those before it in OKLab (Ottosson 2020),
to normal sight and to simulated deuteranopia (Machado et al. 2009) alike, in the manner of Glasbey et al. 2007. Thirty
colours cannot be told apart one by one: names help.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from textwrap import wrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfm.core.report import printable
from xfm.plots.axes import GREY, INK, draw_legend, set_title, shorten

SIDE, LEGEND_LINE = 3.5, 0.165  # inches: of a panel, of a line of a legend
NEAREST = 15  # points that decide whether a place belongs to a class
LETTERS, MOST_LETTERS = 20, 26  # of a name in one line, and of a line of two
CAUTION = "UMAP distorts distances and densities and proves nothing; the numbers are in the tables."
PALETTE = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#1B1F24", "#F0E442", "#87004B", "#4B0FA5",
    "#785A00", "#8778FF", "#4BD287", "#875A78", "#FF96FF", "#0F4B78", "#B44BB4", "#96A55A", "#4B4BD2", "#1E5A00",
    "#C32D4B", "#C3A5D2", "#782DA5", "#C369F0", "#B4D25A", "#0F78F0", "#006969", "#9687C3", "#873C3C", "#FF69A5",
)  # fmt: skip
OTHER = "#B4BAC2"
NO_LABEL = "(no label)"
F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes of N cells."""

    names: list[str]  # most frequent first, then "other (n classes)" where there were too many
    counts: list[int]  # cells of each
    codes: NDArray[np.intp]  # (N,) index into names
    colours: list[str]  # one a name
    gathered: int  # how many classes the last name stands for; 0 where every class has its own


def group_classes(labels: Sequence[str] | NDArray[np.str_], most: int = len(PALETTE)) -> Classes:
    """Sorts classes by frequency, equals by name, and gathers all beyond `most` - 1 as one if there are more.

    Args:
        labels: (N,) one a cell; an empty one is a class of its own.
        most: names at most, "other" included.

    Raises:
        ValueError: no cells, or room for fewer than two names.
    """
    if len(labels) == 0 or most < 2:
        raise ValueError(f"classes of {len(labels)} cells under at most {most} names: give a cell and two names")
    found, inverse, counts = np.unique(np.asarray(labels, dtype=np.str_), return_inverse=True, return_counts=True)
    order = np.lexsort((found, -counts))
    names = [str(found[index]) or NO_LABEL for index in order]
    sizes = [int(counts[index]) for index in order]
    codes = np.argsort(order)[inverse.reshape(-1)]
    kept = len(names) if len(names) <= most else most - 1
    colours, gathered = [PALETTE[index % len(PALETTE)] for index in range(kept)], len(names) - kept
    if not gathered:
        return Classes(names, sizes, codes, colours, 0)
    names = [*names[:kept], f"other ({gathered:,} classes)"]
    sizes = [*sizes[:kept], sum(sizes[kept:])]
    return Classes(names, sizes, np.minimum(codes, kept), [*colours, OTHER], gathered)


def add_panel(canvas: Any, left: float, bottom: float, xy: NDArray[np.floating[Any]], title: str) -> Any:
    """Axes of SIDE inches at so many inches from the left and the bottom, for (N, 2) points.

    The same length on both axes: distances are distorted enough as it is.
    """
    width, height = canvas.get_size_inches()
    axes = canvas.add_axes((left / width, bottom / height, SIDE / width, SIDE / height))
    low, high = xy.min(axis=0).astype(np.float64), xy.max(axis=0).astype(np.float64)
    half = 0.54 * float((high - low).max()) or 1.0
    (start, floor), (end, top) = (low + high) / 2 - half, (low + high) / 2 + half
    axes.set(xlim=(start, end), ylim=(floor, top), xticks=[], yticks=[])
    axes.spines[:].set_color("#d5dae0")
    set_title(axes, shorten(title, 44), 10, 6)
    axes.set_xlabel("UMAP1", loc="left", color=GREY, fontsize=7, labelpad=2)
    axes.set_ylabel("UMAP2", loc="bottom", color=GREY, fontsize=7, labelpad=2)
    return axes


def legend_height(classes: Classes, columns: int, margin: float) -> float:
    """Inches that the names take, with a margin."""
    return margin + LEGEND_LINE * -(-len(classes.names) // columns)


def add_legend(
    canvas: Any,
    corner: tuple[float, float],
    classes: Classes,
    columns: int,
    letters: int,
    *,
    title: str = "",
    has_counts: bool = True,
) -> None:
    """Names of the classes, the most frequent first, of so many letters each in so many columns.

    Args:
        corner: its upper left one, as shares of the canvas.
        has_counts: the number of cells stands behind each name.
    """
    from matplotlib.lines import Line2D

    dot: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 6, "markeredgewidth": 0}
    handles = [Line2D([], [], color=colour, **dot) for colour in classes.colours]
    counts = [f" ({count:,})" if has_counts else "" for count in classes.counts]
    words = [shorten(name, letters) + count for name, count in zip(classes.names, counts, strict=True)]
    draw_legend(
        canvas, handles, words, loc="upper left", bbox_to_anchor=corner, ncols=columns, fontsize=8, title=title or None,
        title_fontsize=8.5, alignment="left", handletextpad=0.1, columnspacing=1.2, labelspacing=0.35, borderpad=0.2,
        borderaxespad=0.0,
    )  # fmt: skip


def write_names(axes: Any, xy: NDArray[np.floating[Any]], classes: Classes) -> None:
    """Writes each class at the median of its points, if most points there are its own; names move apart.

    Where fewer than half of the classes have such a place (batches that mix), nothing is written: the legend tells.
    The limits of the axes must be final.
    """
    from matplotlib.patheffects import withStroke

    places = places_of(xy, classes.codes, len(classes.names))
    known = [index for index in places if classes.colours[index] != OTHER]
    if 2 * len(known) < len(classes.names) or len(classes.names) == 1:
        return
    halo = [withStroke(linewidth=2.4, foreground="white", alpha=0.85)]
    style = {"color": INK, "fontsize": 7.5, "fontweight": "bold", "ha": "center", "va": "center", "zorder": 6}
    frame = axes.get_window_extent()
    pixels = axes.transData.transform(xy)
    texts, centres, sizes = [], [], []
    for index in known:
        words = in_lines(classes.names[index])
        text = axes.text(*places[index], words, path_effects=halo, parse_math=False, linespacing=0.95, **style)
        box = text.get_window_extent()
        size = np.array((box.width + 6, box.height + 2))
        texts.append(text)
        sizes.append(size)
        middle = axes.transData.transform(places[index])
        centres.append(_beside(middle, size, pixels, classes.codes == index, frame.y0, frame.y1))
    moved = move_apart(np.array(centres), np.array(sizes), np.array(frame.min), np.array(frame.max))
    for text, place in zip(texts, axes.transData.inverted().transform(moved), strict=True):
        text.set_position(place)


def _beside(middle: F64, size: F64, pixels: F64, is_own: NDArray[np.bool_], bottom: float, top: float) -> F64:
    """The middle of a class, or beneath or above a class that its name would cover: where fewer points are covered."""
    low, high = np.quantile(pixels[is_own], (0.03, 0.97), axis=0)
    if high[0] - low[0] >= size[0] or high[1] - low[1] >= 2.5 * size[1]:
        return middle
    heights = [low[1] - size[1] / 2 - 4, high[1] + size[1] / 2 + 4]
    inside = [height for height in heights if bottom < height - size[1] / 2 and height + size[1] / 2 < top]
    ways = [np.array((middle[0], height)) for height in inside or heights]
    return min(ways, key=lambda way: int((abs(pixels - way) < size / 2).all(axis=1).sum()))


def in_lines(name: str) -> str:
    """A name in one line, or in two about equal ones broken between words, shortened where that does not do."""
    name = printable(name).strip()
    if len(name) <= LETTERS:
        return name
    for letters in range(LETTERS // 2, MOST_LETTERS + 1):
        lines = wrap(name, letters, break_on_hyphens=False, break_long_words=False)
        if len(lines) <= 2 and max(map(len, lines)) <= letters:
            return "\n".join(lines)
    return shorten(name, MOST_LETTERS)


def places_of(xy: NDArray[np.floating[Any]], codes: NDArray[np.intp], number: int) -> dict[int, F64]:
    """{class: (2,) median of its points}, of those classes that most of the 15 nearest points belong to."""
    from scipy.spatial import cKDTree

    tree = cKDTree(xy)
    places = {}
    for index in range(number):
        own = xy[codes == index]
        if len(own) == 0:
            continue
        middle = np.median(own, axis=0).astype(np.float64)
        _, near = tree.query(middle, k=min(NEAREST, len(own), len(xy)))
        if np.mean(codes[np.atleast_1d(near)] == index) > 0.5:
            places[index] = middle
    return places


def move_apart(centres: F64, sizes: F64, low: F64, high: F64) -> F64:
    """(K, 2) centres of boxes of (K, 2) sizes, pushed apart until none overlap, inside the frame where there is room.

    Every overlap is resolved along the axis that needs the shorter way, half by each box, sweep after sweep.
    """
    limits = low + sizes / 2, np.maximum(high - sizes / 2, low + sizes / 2)
    moved = np.clip(centres, *limits)
    for _ in range(500):
        is_apart = True
        for first, second in combinations(range(len(moved)), 2):
            way = moved[second] - moved[first]
            overlap = (sizes[first] + sizes[second]) / 2 - abs(way)
            if (overlap <= 1e-6).any():
                continue
            is_apart = False
            axis = int(np.argmin(overlap))
            push = (overlap[axis] / 2 + 0.01) * (1 if way[axis] >= 0 else -1)
            moved[first, axis] -= push
            moved[second, axis] += push
        moved = np.clip(moved, *limits)
        if is_apart:
            break
    return moved
