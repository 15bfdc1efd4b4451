"""Cells in two dimensions, coloured by what is known of them: UMAPs of layers side by side.

A UMAP distorts distances and densities and can show clusters where there are none (Chari and Pachter, PLOS
Computational Biology 2023): these panels are for looking, and the caption says so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfm.core.random import rng_for
from xfm.core.report import Figure
from xfm.plots.axes import GREY, INK, new_canvas, plot_files, shorten, write_csv, write_png
from xfm.plots.classes import Classes, group_classes
from xfm.plots.names import write_names

SIDE, GAP, TITLE = 3.5, 0.2, 0.34  # inches: a panel, between panels, above each
LEGEND_LINE = 0.165  # inches
LETTERS_BY_COLUMNS = {3: 27, 2: 44}  # of a name in a legend
MOST_NAMED = 12  # classes whose names still find room on a panel
CAUTION = "UMAP distorts distances and densities and proves nothing; the numbers are in the tables."


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of cells.

    Attributes:
        title: above it, e.g. "cls, layer 7 (chosen on validation)".
        xy: (N, 2) coordinates.
        labels: (N,) class of each cell, as text.
        legend: what the labels are, e.g. "cell_type".
    """

    title: str
    xy: NDArray[np.floating[Any]]
    labels: Sequence[str] | NDArray[np.str_]
    legend: str = ""


def draw_panels(
    output: Path,
    name: str,
    panels: Sequence[Panel],
    caption: str,
    *,
    columns: int = 2,
    cells: Sequence[str] = (),
    noun: str = "cells",
) -> Figure:
    """Writes plots/NAME.png and plots/NAME.csv (a line a cell: coordinates and labels) below `output`.

    Neighbouring panels with the same labels share a row and its legend: give best and last layer by cell type, then
    best and last layer by batch, for two rows of two.

    Args:
        output: folder of the job.
        name: file-name safe.
        panels: at least one, all of the same N cells; legible up to 20,000.
        caption: one sentence that says what is seen; that a UMAP proves nothing is added.
        columns: panels a row at most.
        cells: (N,) row ids for the CSV; numbers from 0 where empty.
        noun: what they are called.

    Raises:
        ValueError: no panel, or one whose shapes do not fit, or coordinates that are not finite.
    """
    _check(panels, cells)
    png, table = plot_files(output, name)
    write_csv(table, *_table(panels, cells, noun))
    _draw(png, panels, columns)
    return Figure(
        name=name,
        caption=f"{caption.rstrip()} {CAUTION}",
        alt="; ".join(f"{panel.title}: {len(panel.labels):,} {noun} by {panel.legend or 'label'}" for panel in panels),
        png=f"plots/{name}.png",
        csv=f"plots/{name}.csv",
        wide=True,
    )


def _check(panels: Sequence[Panel], cells: Sequence[str]) -> None:
    if not panels:
        raise ValueError("a scatter plot needs at least one panel; none was given")
    number = len(panels[0].labels)
    if cells and len(cells) != number:
        raise ValueError(f"{len(cells)} row ids for {number} cells; give as many, or none")
    for panel in panels:
        if panel.xy.shape != (number, 2) or len(panel.labels) != number:
            found = f"coordinates {panel.xy.shape} and {len(panel.labels)} labels"
            raise ValueError(f"panel {panel.title!r}: {found} for {number} cells; give ({number}, 2) and {number}")
        if not np.isfinite(panel.xy).all():
            raise ValueError(f"panel {panel.title!r}: a coordinate is NaN or infinite; leave such cells out")


def _table(panels: Sequence[Panel], cells: Sequence[str], noun: str) -> tuple[list[str], Iterator[list[object]]]:
    """Head and rows of the CSV; coordinates and labels that several panels share stand there once."""
    shown: dict[bytes, Panel] = {}
    labels: dict[tuple[str, ...], Panel] = {}
    for panel in panels:
        shown.setdefault(panel.xy.tobytes(), panel)
        labels.setdefault(tuple(map(str, panel.labels)), panel)
    head = [noun.removesuffix("s"), *(f"{panel.title} UMAP{axis}" for panel in shown.values() for axis in (1, 2))]
    head += [panel.legend or "label" for panel in labels.values()]
    rows = (
        [cell, *(f"{value:.4f}" for panel in shown.values() for value in panel.xy[index]), *words]
        for index, (cell, *words) in enumerate(zip(cells or range(len(panels[0].labels)), *labels, strict=True))
    )
    return head, rows


def _draw(path: Path, panels: Sequence[Panel], columns: int) -> None:
    rows = _rows(panels, columns)
    heights = [TITLE + SIDE + _legend_height(classes) for _, classes in rows]
    width, height = columns * SIDE + (columns - 1) * GAP, sum(heights)
    canvas = new_canvas(width, height)
    top = height
    for (row, classes), tall in zip(rows, heights, strict=True):
        for column, panel in enumerate(row):
            left, bottom = column * (SIDE + GAP), top - TITLE - SIDE
            axes = canvas.add_axes((left / width, bottom / height, SIDE / width, SIDE / height))
            _draw_panel(axes, panel, classes)
        _draw_legend(canvas, row[0].legend, classes, (top - TITLE - SIDE - 0.18) / height)
        top -= tall
    write_png(canvas, path, colours=256)


def _rows(panels: Sequence[Panel], columns: int) -> list[tuple[list[Panel], Classes]]:
    rows = []
    for _, same in groupby(panels, key=lambda panel: (panel.legend, tuple(panel.labels))):
        alike = list(same)
        classes = group_classes(alike[0].labels)
        rows += [(alike[start : start + columns], classes) for start in range(0, len(alike), columns)]
    return rows


def _draw_panel(axes: Any, panel: Panel, classes: Classes) -> None:
    from matplotlib.colors import to_rgba_array

    number = len(panel.xy)
    # Keyed and the same in every panel, so that no class lies on top of the others.
    order = rng_for(0, "drawing order").permutation(number)
    colours = to_rgba_array(classes.colours)[classes.codes[order]]
    colours[:, 3] = np.clip(1.25 - 0.2 * np.log10(number), 0.3, 0.9)
    x, y = panel.xy[order].T
    axes.scatter(x, y, s=np.clip(16_000 / number, 1.6, 24.0), c=colours, linewidths=0, rasterized=True)
    _make_square(axes, panel.xy)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#d5dae0")
    axes.set_title(shorten(panel.title, 44), loc="left", color=INK, fontsize=10, fontweight="bold", parse_math=False)
    axes.set_xlabel("UMAP1", loc="left", color=GREY, fontsize=7, labelpad=2)
    axes.set_ylabel("UMAP2", loc="bottom", color=GREY, fontsize=7, labelpad=2)
    if len(classes.names) <= MOST_NAMED:
        write_names(axes, panel.xy, classes)


def _make_square(axes: Any, xy: NDArray[np.floating[Any]]) -> None:
    """The same length on both axes of a square panel: distances are distorted enough as it is."""
    low, high = xy.min(axis=0).astype(np.float64), xy.max(axis=0).astype(np.float64)
    half = 0.54 * float((high - low).max()) or 1.0
    (left, bottom), (right, top) = (low + high) / 2 - half, (low + high) / 2 + half
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def _legend_columns(classes: Classes) -> int:
    longest = max(map(len, classes.names))
    return max((columns for columns, letters in LETTERS_BY_COLUMNS.items() if letters >= longest), default=2)


def _legend_height(classes: Classes) -> float:
    return 0.55 + LEGEND_LINE * -(-len(classes.names) // _legend_columns(classes))


def _draw_legend(canvas: Any, title: str, classes: Classes, top: float) -> None:
    """Beneath a row, where long names find room: names with counts, the most frequent first."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=6, markeredgewidth=0, color=colour)
        for colour in classes.colours
    ]
    columns = _legend_columns(classes)
    words = [
        f"{shorten(name, LETTERS_BY_COLUMNS[columns])} ({count:,})"
        for name, count in zip(classes.names, classes.counts, strict=True)
    ]
    legend = canvas.legend(
        handles,
        words,
        loc="upper left",
        bbox_to_anchor=(0.0, top),
        ncols=columns,
        frameon=False,
        fontsize=8,
        labelcolor=INK,
        title=title or None,
        title_fontsize=8.5,
        alignment="left",
        handletextpad=0.1,
        columnspacing=1.2,
        labelspacing=0.35,
        borderpad=0.2,
        borderaxespad=0.0,
    )
    for text in (*legend.get_texts(), legend.get_title()):
        text.set_parse_math(False)
