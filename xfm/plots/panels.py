"""Pictures of cells in two dimensions: the classes they show, a square panel, and the legend beneath.

The most frequent classes have a colour each, the rest is gathered. The first eight colours are Okabe and Ito's (2008),
readable with every kind of colour vision. Each later one is the furthest from those before it in OKLab (Ottosson 2020),
to normal sight and to simulated deuteranopia (Machado et al. 2009) alike, in the manner of Glasbey et al. 2007. Thirty
colours cannot be told apart one by one: names help.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfm.plots.axes import GREY, draw_legend, set_title, shorten

SIDE, LEGEND_LINE = 3.5, 0.165  # inches: of a panel, of a line of a legend
CAUTION = "UMAP distorts distances and densities and proves nothing; the numbers are in the tables."
PALETTE = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#1B1F24", "#F0E442", "#87004B", "#4B0FA5",
    "#785A00", "#8778FF", "#4BD287", "#875A78", "#FF96FF", "#0F4B78", "#B44BB4", "#96A55A", "#4B4BD2", "#1E5A00",
    "#C32D4B", "#C3A5D2", "#782DA5", "#C369F0", "#B4D25A", "#0F78F0", "#006969", "#9687C3", "#873C3C", "#FF69A5",
)  # fmt: skip
OTHER = "#B4BAC2"
NO_LABEL = "(no label)"


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
    rank = np.empty(len(order), dtype=np.intp)
    rank[order] = np.arange(len(order))
    codes = rank[inverse.reshape(-1)]
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
    axes.set_xlim(start, end)
    axes.set_ylim(floor, top)
    axes.set_xticks([])
    axes.set_yticks([])
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
    """Names of the classes, the most frequent first.

    Args:
        corner: its upper left one, as shares of the canvas.
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
