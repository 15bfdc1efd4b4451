"""UMAPs: coordinates, cells with the words for their types in one space, and cells by what is known of them.

UMAP (McInnes, Healy, Melville 2018) through umap-learn, the same every time. Neighbours and `min_dist` are scanpy's
defaults. The layout starts from the first two principal components instead of a spectral embedding: it then keeps more
of the global arrangement (Kobak and Linderman, Nature Biotechnology 2021) and needs no eigensolver that may fail on
graphs in pieces.

In the shared space each type gives the same number of cells, or the largest type would be the picture. UMAP is fitted
once on text and gene vectors stacked: two fits would lay each side out on its own, and the gap between them would not
be seen.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfm.core.errors import Refused
from xfm.core.random import rng_for
from xfm.core.report import Figure
from xfm.plots.axes import INK, new_canvas, save_plot
from xfm.plots.panels import CAUTION, LEGEND_LINE, SIDE, Classes, add_legend, add_panel, group_classes, legend_height

FEWEST = 16  # cells; with fewer there are no 15 neighbours, and nothing to look at
NEIGHBOURS, MIN_DIST, SPREAD = 15, 0.5, 1.0
F32 = NDArray[np.float32]
Vectors = NDArray[np.floating[Any]]
SEED = 42  # of the reference's UMAP
PER_TYPE = 20
MOST_DRAWN = 1600
GAP, TITLE, MARGIN = 0.25, 0.36, 0.38  # inches: between panels, above each, around a legend
LETTERS = {3: 30, 2: 17}  # of a name in a legend, by its columns


@dataclass(frozen=True, slots=True)
class SharedPoints:
    """Text and gene vectors in one plane."""

    rows: NDArray[np.intp]  # (M,) which of the N cells were drawn, rising
    types: NDArray[np.intp]  # (M,) code of each
    gene: NDArray[np.floating[Any]]  # (M, 2) coordinates of these cells
    shown: NDArray[np.intp]  # (K',) codes of the types whose text vector is drawn: those with a cell
    text: NDArray[np.floating[Any]]  # (K', 2) their coordinates


def umap_coordinates(x: Vectors, seed: int) -> F32:
    """UMAP on one thread, with fixed draws: the same input gives the same bytes in the same environment.

    Args:
        x: (N, D) one vector a cell, N >= 16.

    Returns:
        (N, 2).

    Raises:
        Refused: TOO_FEW_CELLS; NOT_FINITE; CONSTANT where all cells have the same vector, as at the <cls> token's
            input embedding.
    """
    cells = len(x)
    if cells < FEWEST:
        raise Refused("TOO_FEW_CELLS", f"a UMAP of {cells} cells says nothing; it needs at least {FEWEST}")
    if not np.isfinite(x).all():
        raise Refused("NOT_FINITE", f"{int((~np.isfinite(x)).any(axis=1).sum()):,} of {cells:,} cells hold NaN or inf")
    if (x == x[0]).all():
        raise Refused("CONSTANT", f"all {cells:,} cells have the same vector; there is nothing to lay out")
    from sklearn.neighbors import NearestNeighbors

    distances, indices = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute").fit(x).kneighbors(x)
    return _layout(x, indices, distances, seed)


def shared_points(
    gene: Vectors, text: Vectors, types: NDArray[np.integer[Any]], seed: int = SEED, per_type: int = PER_TYPE
) -> SharedPoints:
    """A sample with as many cells of each type, laid out once together with the text vectors of their types.

    The sample depends on `types` and `seed` alone: the same cells come before and after training.

    Args:
        gene: (N, P) vectors of cells.
        text: (K, P) vectors of types, as `encode_text` gives them for a bank.
        types: (N,) codes into `text`; cells with a negative one have no type and are left out.
        per_type: cells of each type; all of a rarer one.

    Raises:
        ValueError: shapes that do not fit.
        Refused: as `umap_coordinates`: too few points, all alike, or not finite.
    """
    fits = gene.ndim == text.ndim == 2 and gene.shape[1] == text.shape[1] and types.shape == (len(gene),)
    if not fits or per_type < 1 or types.max(initial=-1) >= len(text):
        shapes = f"gene {gene.shape}, text {text.shape}, types {types.shape} up to {types.max(initial=-1)}"
        wanted = "give (N, P), (K, P) and (N,) codes below K, at least one a type"
        raise ValueError(f"{shapes}, {per_type} a type; {wanted}")
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
    titles: tuple[str, str] = ("before training", "after training"),
    caption: str = "",
) -> Figure:
    """Writes plots/shared_umap.png and .csv: circle is text, square is gene, colour is type, alike in both panels.

    Args:
        before, after: the same cells with the weights of step 0 and with the trained ones.

    Raises:
        ValueError: other cells before than after.
    """
    if not np.array_equal(before.rows, after.rows) or not np.array_equal(before.types, after.types):
        raise ValueError(f"{len(before.rows)} cells before, {len(after.rows)} after: give the same cells, in one order")
    both = group_classes([types[code] for code in [*before.types.tolist(), *before.shown.tolist()]])
    width, height = 2 * SIDE + GAP, TITLE + SIDE + legend_height(both, 3, MARGIN) + 2 * LEGEND_LINE
    canvas = new_canvas(width, height)
    for place, (title, points) in enumerate(zip(titles, (before, after), strict=True)):
        xy = np.concatenate([points.gene, points.text])
        axes = add_panel(canvas, place * (SIDE + GAP), height - TITLE - SIDE, xy, title)
        _shared_panel(axes, points, both)
    corner, words = (0.0, 1 - (TITLE + SIDE + 0.2) / height), "cell type; circle: text, square: gene"
    add_legend(canvas, corner, both, 3, LETTERS[3], title=words, has_counts=False)
    cells = f"{len(before.rows):,} cells of {len(before.shown)} types"
    said = caption or f"Text and gene vectors of {cells} in the shared space, {titles[0]} and {titles[1]}."
    note = "UMAP was fitted once a panel on text and gene together; places in the two panels cannot be compared."
    head = ["panel", "modality", "row", "type", "UMAP1", "UMAP2"]
    rows = [row for title, points in zip(titles, (before, after), strict=True) for row in _rows(title, points, types)]
    alt = f"Two UMAPs, {titles[0]} and {titles[1]}: {cells} as squares, the words for each type as a circle."
    return save_plot(canvas, output, "shared_umap", head, rows, caption=f"{said} {note} {CAUTION}", alt=alt, wide=True)


def draw_embedding_umap(
    output: Path,
    vectors: Vectors,
    columns: Mapping[str, Sequence[str] | NDArray[np.str_]],
    *,
    cells: Sequence[str] = (),
    caption: str = "",
) -> Figure:
    """Writes plots/embedding_umap.png and .csv: the same UMAP once for each column, e.g. type, donor, sex, data set.

    Of more than MOST_DRAWN cells a keyed sample is drawn.

    Args:
        vectors: (N, D) embeddings.
        columns: name -> (N,) values; an empty one is "(no label)".
        cells: (N,) row ids for the CSV; numbers from 0 where empty.

    Raises:
        ValueError: no column, or one of another length.
        Refused: as `umap_coordinates`: too few cells, all alike, or not finite.
    """
    lengths = {column: len(values) for column, values in columns.items()}
    if not columns or set(lengths.values()) != {len(vectors)} or (cells and len(cells) != len(vectors)):
        raise ValueError(f"{len(vectors)} cells need at least one column of as many values, and as many ids: {lengths}")
    rows = np.arange(len(vectors))
    if len(rows) > MOST_DRAWN:
        rows = np.sort(rng_for(SEED, "cells drawn").permutation(len(rows))[:MOST_DRAWN])
    xy = umap_coordinates(vectors[rows], SEED)
    labels = {column: np.asarray(values, dtype=np.str_)[rows] for column, values in columns.items()}
    ids = [cells[row] if cells else row for row in rows.tolist()]
    lines = zip(ids, xy.tolist(), *labels.values(), strict=True)
    canvas = _draw_columns(xy, {column: group_classes(values) for column, values in labels.items()})
    *most, last = labels
    names, is_all = f"{', '.join(most)} and {last}" if most else last, len(rows) == len(vectors)
    sampled = f"All {len(rows):,} cells" if is_all else f"{len(rows):,} of {len(vectors):,} cells, drawn at random,"
    said = caption or f"{sampled} laid out by UMAP, coloured by {names}."
    sizes = ", ".join(f"{column}: {len(np.unique(values))} values" for column, values in labels.items())
    return save_plot(
        canvas, output, "embedding_umap", ["cell", "UMAP1", "UMAP2", *labels],
        ([name, *at, *own] for name, at, *own in lines), caption=f"{said} {CAUTION}",
        alt=f"One UMAP of {len(rows):,} cells, coloured in turn by {sizes}.", wide=len(labels) > 1, colours=256,
    )  # fmt: skip


def _rows(title: str, points: SharedPoints, types: Sequence[str]) -> list[list[object]]:
    gene = zip(points.rows, points.types, points.gene.tolist(), strict=True)
    text = zip(points.shown, points.text.tolist(), strict=True)
    cells: list[list[object]] = [[title, "gene", int(row), types[int(code)], *at] for row, code, at in gene]
    return cells + [[title, "text", None, types[int(code)], *at] for code, at in text]


def _shared_panel(axes: Any, points: SharedPoints, classes: Classes) -> None:
    cells = len(points.types)
    colours = np.asarray(classes.colours)[classes.codes]
    order = rng_for(0, "drawing order").permutation(cells)
    axes.scatter(*points.gene[order].T, c=colours[:cells][order], marker="s", s=13, alpha=0.75, linewidths=0)
    # Above the cells and ringed: there is one circle a type.
    axes.scatter(*points.text.T, c=colours[cells:], marker="o", s=68, edgecolors=INK, linewidths=1.1, zorder=4)


def _draw_columns(xy: Vectors, columns: Mapping[str, Classes]) -> Any:
    across = min(2, len(columns))
    names = list(columns)
    pairs = [names[start : start + across] for start in range(0, len(names), across)]
    tall = [TITLE + SIDE + max(legend_height(columns[name], 2, MARGIN) for name in pair) for pair in pairs]
    width, height = across * SIDE + (across - 1) * GAP, sum(tall)
    canvas = new_canvas(width, height)
    order = rng_for(SEED, "drawing order").permutation(len(xy))
    for line, pair in enumerate(pairs):
        top = sum(tall[:line])
        for place, name in enumerate(pair):
            classes, left = columns[name], place * (SIDE + GAP)
            axes = add_panel(canvas, left, height - top - TITLE - SIDE, xy, name)
            colours = np.asarray(classes.colours)[classes.codes]
            size = float(np.clip(9_000 / len(xy), 3.5, 22))
            axes.scatter(*xy[order].T, c=colours[order], s=size, alpha=0.75, linewidths=0, rasterized=True)
            corner = (left / width, 1 - (top + TITLE + SIDE + 0.2) / height)
            add_legend(canvas, corner, classes, 2, LETTERS[2])
    return canvas


def _layout(x: Vectors, indices: NDArray[np.integer[Any]], distances: Vectors, seed: int) -> F32:
    with warnings.catch_warnings():
        # umap-learn looks for Keras when it is imported.
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        from umap.umap_ import find_ab_params, fuzzy_simplicial_set, simplicial_set_embedding

    # A matrix product leaves a cell a little way from itself, and umap-learn measures from the nearest that is not 0.
    distances = np.where(indices == np.arange(len(x))[:, None], 0.0, distances)
    random = np.random.RandomState(seed % 2**32)
    near = {"knn_indices": indices.astype(np.int64), "knn_dists": distances.astype(np.float32)}
    graph, _, _ = fuzzy_simplicial_set(x, NEIGHBOURS, random, "euclidean", **near)
    a, b = find_ab_params(SPREAD, MIN_DIST)
    descent = {"initial_alpha": 1.0, "a": a, "b": b, "gamma": 1.0, "negative_sample_rate": 5, "n_epochs": None}
    start = {"init": _first_components(x, random), "random_state": random}
    plain = {"metric": "euclidean", "metric_kwds": {}, "densmap": False, "densmap_kwds": {}, "output_dens": False}
    layout, _ = simplicial_set_embedding(x, graph, n_components=2, parallel=False, **descent, **start, **plain)
    return np.asarray(layout, dtype=np.float32)


def _first_components(x: Vectors, random: np.random.RandomState) -> F32:
    """(N, 2) principal components, as large and as noisy as umap-learn makes its own starts.

    The noise moves duplicates apart, and gives cells on a line a second axis.
    """
    from sklearn.decomposition import PCA

    number = min(2, x.shape[1])
    scores = np.zeros((len(x), 2))
    scores[:, :number] = PCA(number, svd_solver="randomized", random_state=random).fit_transform(x)
    noise = random.normal(scale=1e-4, size=scores.shape)
    return np.asarray(10 * scores / np.abs(scores).max() + noise, dtype=np.float32)
