"""A square picture of cells in two dimensions, and the legend of their classes beneath."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfm.plots.axes import GREY, draw_legend, set_title, shorten
from xfm.plots.classes import Classes

SIDE, LEGEND_LINE = 3.5, 0.165  # inches: of a panel, of a line of a legend
CAUTION = "UMAP distorts distances and densities and proves nothing; the numbers are in the tables."


def add_panel(canvas: Any, left: float, bottom: float, xy: NDArray[np.floating[Any]], title: str) -> Any:
    """Axes of SIDE inches at so many inches from the left and the bottom, for (N, 2) points.

    The same length on both axes: distances are distorted enough as it is.
    """
    width, height = canvas.get_size_inches()
    axes = canvas.add_axes((left / width, bottom / height, SIDE / width, SIDE / height))
    low, high = xy.min(axis=0).astype(np.float64), xy.max(axis=0).astype(np.float64)
    half = 0.54 * float((high - low).max()) or 1.0
    (start, floor), (end, top) = (low + high) / 2 - half, (low + high) / 2 + half
    axes.set_xlim(start, end)
    axes.set_ylim(floor, top)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#d5dae0")
    set_title(axes, shorten(title, 44), 10, 6)
    axes.set_xlabel("UMAP1", loc="left", color=GREY, fontsize=7, labelpad=2)
    axes.set_ylabel("UMAP2", loc="bottom", color=GREY, fontsize=7, labelpad=2)
    return axes


def legend_lines(classes: Classes, columns: int) -> int:
    """How many lines the names take."""
    return -(-len(classes.names) // columns)


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
    """Names of the classes, the most frequent first.

    Args:
        canvas: to draw on.
        corner: its upper left one, as shares of the canvas.
        classes: with their colours.
        columns: of names.
        letters: of a name at most.
        title: what the names are of.
        has_counts: the number of cells stands behind each.
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
