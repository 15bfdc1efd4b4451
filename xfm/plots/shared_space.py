"""Cells and the words for their types in one space, and cells by what is known of them, both by UMAP.

Each type gives the same number of cells, or the largest type would be the picture. UMAP is fitted once on text and gene
vectors stacked: two fits would lay each side out on its own, and the gap between them would not be seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfm.core.random import rng_for
from xfm.core.report import Figure
from xfm.plots.axes import GREY, INK, new_canvas, plot_files, shorten, write_csv, write_png
from xfm.plots.classes import Classes, group_classes
from xfm.plots.scatter import CAUTION
from xfm.plots.umap import umap_coordinates

Vectors = NDArray[np.floating[Any]]
SEED = 42  # of the reference's UMAP
PER_TYPE = 20
MOST_DRAWN = 1600
SIDE, GAP, TITLE, LINE = 3.5, 0.25, 0.36, 0.165  # inches: a panel, between panels, above, a line of a legend


@dataclass(frozen=True, slots=True)
class SharedPoints:
    """Text and gene vectors in one plane.

    Attributes:
        rows: (M,) which of the N cells were drawn, rising.
        types: (M,) code of each.
        gene: (M, 2) coordinates of these cells.
        shown: (K',) codes of the types whose text vector is drawn: those with a cell.
        text: (K', 2) their coordinates.
    """

    rows: NDArray[np.intp]
    types: NDArray[np.intp]
    gene: NDArray[np.floating[Any]]
    shown: NDArray[np.intp]
    text: NDArray[np.floating[Any]]


def shared_points(
    gene: Vectors, text: Vectors, types: NDArray[np.integer[Any]], seed: int = SEED, per_type: int = PER_TYPE
) -> SharedPoints:
    """A sample with as many cells of each type, laid out once together with the text vectors of their types.

    The sample depends on `types` and `seed` alone: the same cells come before and after training.

    Args:
        gene: (N, P) vectors of cells.
        text: (K, P) vectors of types, as `encode_text` gives them for a bank.
        types: (N,) codes into `text`; cells with a negative one have no type and are left out.
        seed: keys the sample, and UMAP's draws.
        per_type: cells of each type; all of a rarer one.

    Raises:
        ValueError: shapes that do not fit.
        Refused: as `umap_coordinates`: too few points, all alike, or not finite.
    """
    fits = gene.ndim == text.ndim == 2 and gene.shape[1] == text.shape[1] and types.shape == (len(gene),)
    if not fits or per_type < 1 or types.max(initial=-1) >= len(text):
        shapes = f"gene {gene.shape}, text {text.shape}, types {types.shape} up to {types.max(initial=-1)}"
        raise ValueError(
            f"{shapes}, {per_type} a type; give (N, P), (K, P) and (N,) codes below K, at least one a type"
        )
    shown = np.unique(types[types >= 0]).astype(np.intp)
    drawn = [rng_for(seed, f"cells of type {code}").permutation(np.flatnonzero(types == code)) for code in shown]
    rows = np.sort(np.concatenate([one[:per_type] for one in drawn])) if drawn else np.empty(0, dtype=np.intp)
    stacked = np.concatenate([gene[rows], text[shown]]).astype(np.float32)
    xy = umap_coordinates(stacked, seed)
    return SharedPoints(rows, types[rows].astype(np.intp), xy[: len(rows)], shown, xy[len(rows) :])


def draw_shared_space(
    output: Path,
    before: SharedPoints,
    after: SharedPoints,
    types: Sequence[str],
    *,
    name: str = "shared_umap",
    titles: tuple[str, str] = ("before training", "after training"),
    caption: str = "",
) -> Figure:
    """Writes plots/NAME.png and plots/NAME.csv: circle is text, square is gene, colour is type, alike in both panels.

    Args:
        output: folder of the job.
        before, after: the same cells with the weights of step 0 and with the trained ones.
        types: names of the K types.
        name: file-name safe.
        titles: of the panels.
        caption: a sentence in front.

    Raises:
        ValueError: other cells before than after.
    """
    if not np.array_equal(before.rows, after.rows) or not np.array_equal(before.types, after.types):
        raise ValueError(f"{len(before.rows)} cells before, {len(after.rows)} after: give the same cells, in one order")
    png, table = plot_files(output, name)
    head = ["panel", "modality", "row", "type", "UMAP1", "UMAP2"]
    write_csv(table, head, (row for t, p in zip(titles, (before, after), strict=True) for row in _rows(t, p, types)))
    both = group_classes([types[code] for code in [*before.types.tolist(), *before.shown.tolist()]])
    width, height = 2 * SIDE + GAP, TITLE + SIDE + _legend_height(both, 3) + 2 * LINE
    canvas = new_canvas(width, height)
    for place, (title, points) in enumerate(zip(titles, (before, after), strict=True)):
        axes = _square(canvas, place * (SIDE + GAP), TITLE, np.concatenate([points.gene, points.text]), title)
        _shared_panel(axes, points, both)
    _legend(canvas, 0.0, TITLE + SIDE + 0.2, both, 3, "cell type; circle: text, square: gene", is_shared=True)
    write_png(canvas, png)
    cells = f"{len(before.rows):,} cells of {len(before.shown)} types"
    said = caption or f"Text and gene vectors of {cells} in the shared space, {titles[0]} and {titles[1]}."
    note = "UMAP was fitted once a panel on text and gene together; places in the two panels cannot be compared."
    return Figure(
        name=name,
        caption=f"{said} {note} {CAUTION}",
        alt=f"Two UMAPs, {titles[0]} and {titles[1]}: {cells} as squares, the words for each type as a circle.",
        png=f"plots/{name}.png",
        csv=f"plots/{name}.csv",
        wide=True,
    )


def draw_embedding_umap(
    output: Path,
    vectors: Vectors,
    columns: Mapping[str, Sequence[str] | NDArray[np.str_]],
    *,
    name: str = "embedding_umap",
    seed: int = SEED,
    cells: Sequence[str] = (),
    most: int = MOST_DRAWN,
    is_laid_out: bool = False,
    noun: str = "cells",
    caption: str = "",
) -> Figure:
    """Writes plots/NAME.png and plots/NAME.csv: the same UMAP once for each column, e.g. type, donor, sex, data set.

    Args:
        output: folder of the job.
        vectors: (N, D) embeddings.
        columns: name -> (N,) values; an empty one is "(no label)".
        name: file-name safe.
        seed: keys the sample, and UMAP's draws.
        cells: (N,) row ids for the CSV; numbers from 0 where empty.
        most: cells drawn; a keyed sample of them where there are more.
        is_laid_out: `vectors` are (N, 2) coordinates already.
        noun: what they are called.
        caption: a sentence in front.

    Raises:
        ValueError: no column, or one of another length.
        Refused: as `umap_coordinates`: too few cells, all alike, or not finite.
    """
    lengths = {column: len(values) for column, values in columns.items()}
    if not columns or set(lengths.values()) != {len(vectors)} or (cells and len(cells) != len(vectors)):
        raise ValueError(
            f"{len(vectors)} {noun} need at least one column of as many values, and as many ids: {lengths}"
        )
    if is_laid_out and vectors.shape[1] != 2:
        raise ValueError(f"coordinates have shape {vectors.shape}; give (N, 2), or vectors that are not laid out yet")
    rows = np.arange(len(vectors))
    if len(rows) > most:
        rows = np.sort(rng_for(seed, "cells drawn").permutation(len(rows))[:most])
    xy = vectors[rows] if is_laid_out else umap_coordinates(vectors[rows], seed)
    labels = {column: np.asarray(values, dtype=np.str_)[rows] for column, values in columns.items()}
    png, table = plot_files(output, name)
    ids = [cells[row] if cells else row for row in rows.tolist()]
    lines = zip(ids, xy.tolist(), *labels.values(), strict=True)
    write_csv(table, [noun.removesuffix("s"), "UMAP1", "UMAP2", *labels], ([i, *at, *said] for i, at, *said in lines))
    _draw_columns(png, xy, {column: group_classes(values) for column, values in labels.items()}, seed)
    sampled = (
        f"{len(rows):,} of {len(vectors):,} {noun}, drawn at random,"
        if len(rows) < len(vectors)
        else (f"All {len(rows):,} {noun}")
    )
    said = caption or f"{sampled} laid out by UMAP, coloured by {_listed(list(labels))}."
    sizes = ", ".join(f"{column}: {len(np.unique(values))} values" for column, values in labels.items())
    return Figure(
        name=name,
        caption=f"{said} {CAUTION}",
        alt=f"One UMAP of {len(rows):,} {noun}, coloured in turn by {sizes}.",
        png=f"plots/{name}.png",
        csv=f"plots/{name}.csv",
        wide=len(labels) > 1,
    )


def _rows(title: str, points: SharedPoints, types: Sequence[str]) -> list[list[object]]:
    gene = zip(points.rows, points.types, points.gene.tolist(), strict=True)
    text = zip(points.shown, points.text.tolist(), strict=True)
    cells: list[list[object]] = [[title, "gene", int(row), types[int(code)], *at] for row, code, at in gene]
    return cells + [[title, "text", None, types[int(code)], *at] for code, at in text]


def _shared_panel(axes: Any, points: SharedPoints, classes: Classes) -> None:
    cells = len(points.types)
    colours = np.asarray(classes.colours)[classes.codes]
    order = rng_for(0, "drawing order").permutation(cells)
    style = {"marker": "s", "s": 13, "alpha": 0.75, "linewidths": 0}
    axes.scatter(*points.gene[order].T, c=colours[:cells][order], **style)
    # Above the cells and ringed: there is one circle a type.
    axes.scatter(*points.text.T, c=colours[cells:], marker="o", s=68, edgecolors=INK, linewidths=1.1, zorder=4)


def _draw_columns(path: Path, xy: Vectors, columns: Mapping[str, Classes], seed: int) -> None:
    across = min(2, len(columns))
    names = list(columns)
    pairs = [names[start : start + across] for start in range(0, len(names), across)]
    tall = [TITLE + SIDE + max(_legend_height(columns[name], 2) for name in pair) for pair in pairs]
    canvas = new_canvas(across * SIDE + (across - 1) * GAP, sum(tall))
    order = rng_for(seed, "drawing order").permutation(len(xy))
    for line, pair in enumerate(pairs):
        top = sum(tall[:line])
        for place, name in enumerate(pair):
            classes, left = columns[name], place * (SIDE + GAP)
            axes = _square(canvas, left, top + TITLE, xy, name)
            colours = np.asarray(classes.colours)[classes.codes]
            size = float(np.clip(9_000 / len(xy), 3.5, 22))
            axes.scatter(*xy[order].T, c=colours[order], s=size, alpha=0.75, linewidths=0, rasterized=True)
            _legend(canvas, left, top + TITLE + SIDE + 0.2, classes, 2, "")
    write_png(canvas, path, colours=256)


def _square(canvas: Any, left: float, top: float, xy: Vectors, title: str) -> Any:
    """Axes of SIDE inches at so many inches from the left and the top, the same length on both."""
    width, height = canvas.get_size_inches()
    axes = canvas.add_axes((left / width, 1 - (top + SIDE) / height, SIDE / width, SIDE / height))
    low, high = xy.min(axis=0).astype(np.float64), xy.max(axis=0).astype(np.float64)
    half = 0.54 * float((high - low).max()) or 1.0
    middle = (low + high) / 2
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[1] - half, middle[1] + half)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#d5dae0")
    axes.set_title(shorten(title, 44), loc="left", color=INK, fontsize=10, fontweight="bold", parse_math=False)
    axes.set_xlabel("UMAP1", loc="left", color=GREY, fontsize=7, labelpad=2)
    axes.set_ylabel("UMAP2", loc="bottom", color=GREY, fontsize=7, labelpad=2)
    return axes


def _legend_height(classes: Classes, across: int) -> float:
    return 0.38 + LINE * -(-len(classes.names) // across)


def _legend(
    canvas: Any, left: float, top: float, classes: Classes, across: int, title: str, *, is_shared: bool = False
) -> None:
    from matplotlib.lines import Line2D

    width, height = canvas.get_size_inches()
    handles = [
        Line2D([], [], color=colour, linestyle="", marker="o", markersize=6, markeredgewidth=0)
        for colour in classes.colours
    ]
    counts = ["" if is_shared else f" ({count:,})" for count in classes.counts]
    words = [shorten(n, 30 if across == 3 else 17) + c for n, c in zip(classes.names, counts, strict=True)]
    legend = canvas.legend(
        handles, words, loc="upper left", bbox_to_anchor=(left / width, 1 - top / height), ncols=across, frameon=False,
        fontsize=8, labelcolor=INK, title=title or None, title_fontsize=8.5, alignment="left", handletextpad=0.1,
        columnspacing=1.2, labelspacing=0.35, borderpad=0.2, borderaxespad=0.0,
    )  # fmt: skip
    for text in (*legend.get_texts(), legend.get_title()):
        text.set_parse_math(False)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
