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
from xfm.plots.axes import new_canvas, save_plot
from xfm.plots.panels import CAUTION, SIDE, Classes, add_legend, add_panel, group_classes, legend_height, write_names

GAP, TITLE = 0.2, 0.34  # inches: between panels, above each
LETTERS_BY_COLUMNS = {3: 27, 2: 44}  # of a name in a legend
MOST_NAMED = 12  # classes whose names still find room on a panel


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of cells."""

    title: str  # above it, e.g. "cls, layer 7 (chosen on validation)".
    xy: NDArray[np.floating[Any]]  # (N, 2) coordinates
    labels: Sequence[str] | NDArray[np.str_]  # (N,) class of each cell, as text
    legend: str = ""  # what the labels are, e.g. "cell_type".


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
        panels: at least one, all of the same N cells; legible up to 20,000.
        caption: that a UMAP proves nothing is added.
        columns: panels a row at most.
        cells: (N,) row ids for the CSV; numbers from 0 where empty.

    Raises:
        ValueError: no panel, or one whose shapes do not fit, or coordinates that are not finite.
    """
    _check(panels, cells)
    alt = "; ".join(f"{panel.title}: {len(panel.labels):,} {noun} by {panel.legend or 'label'}" for panel in panels)
    return save_plot(
        _draw(panels, columns), output, name, *_table(panels, cells, noun), caption=f"{caption.rstrip()} {CAUTION}",
        alt=alt, wide=True, colours=256,
    )  # fmt: skip


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


def _draw(panels: Sequence[Panel], columns: int) -> Any:
    rows = _rows(panels, columns)
    heights = [TITLE + SIDE + legend_height(classes, _legend_columns(classes), 0.55) for _, classes in rows]
    width, height = columns * SIDE + (columns - 1) * GAP, sum(heights)
    canvas = new_canvas(width, height)
    top = height
    for (row, classes), tall in zip(rows, heights, strict=True):
        for column, panel in enumerate(row):
            axes = add_panel(canvas, column * (SIDE + GAP), top - TITLE - SIDE, panel.xy, panel.title)
            _draw_panel(axes, panel, classes)
        across = _legend_columns(classes)
        corner = (0.0, (top - TITLE - SIDE - 0.18) / height)
        add_legend(canvas, corner, classes, across, LETTERS_BY_COLUMNS[across], title=row[0].legend)
        top -= tall
    return canvas


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
    if len(classes.names) <= MOST_NAMED:
        write_names(axes, panel.xy, classes)


def _legend_columns(classes: Classes) -> int:
    longest = max(map(len, classes.names))
    return max((columns for columns, letters in LETTERS_BY_COLUMNS.items() if letters >= longest), default=2)
