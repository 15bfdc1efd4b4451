"""Names of classes written into a cloud of points, where the class is and where no other name stands."""

from textwrap import wrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfm.core.report import printable
from xfm.plots.axes import INK, shorten
from xfm.plots.panels import OTHER, Classes

NEAREST = 15  # points that decide whether a place belongs to a class
LETTERS, MOST_LETTERS = 20, 26  # of a name in one line, and of a line of two
F64 = NDArray[np.float64]


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
    moved = np.clip(centres, low + sizes / 2, np.maximum(high - sizes / 2, low + sizes / 2))
    for _ in range(500):
        is_apart = True
        for first in range(len(moved)):
            for second in range(first + 1, len(moved)):
                way = moved[second] - moved[first]
                overlap = (sizes[first] + sizes[second]) / 2 - abs(way)
                if (overlap <= 1e-6).any():
                    continue
                is_apart = False
                axis = int(np.argmin(overlap))
                push = np.zeros(2)
                push[axis] = (overlap[axis] / 2 + 0.01) * (1 if way[axis] >= 0 else -1)
                moved[first] -= push
                moved[second] += push
        moved = np.clip(moved, low + sizes / 2, np.maximum(high - sizes / 2, low + sizes / 2))
        if is_apart:
            break
    return moved
