"""Two coordinates for each cell by UMAP (McInnes, Healy, Melville 2018), through umap-learn, the same every time.

Neighbours and `min_dist` are scanpy's defaults. The layout starts from the first two principal components instead of a
spectral embedding: it then keeps more of the global arrangement (Kobak and Linderman, Nature Biotechnology 2021) and
needs no eigensolver that may fail on graphs in pieces.
"""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfm.core.errors import Refused

FEWEST = 16  # cells; with fewer there are no 15 neighbours, and nothing to look at
NEIGHBOURS, MIN_DIST, SPREAD = 15, 0.5, 1.0
F32 = NDArray[np.float32]
Matrix = NDArray[np.floating[Any]]
Neighbours = tuple[NDArray[np.integer[Any]], Matrix]


def umap_coordinates(
    x: Matrix,
    seed: int,
    *,
    neighbours: Neighbours | None = None,
    n_neighbours: int = NEIGHBOURS,
    min_dist: float = MIN_DIST,
) -> F32:
    """UMAP on one thread, with fixed draws: the same input gives the same bytes in the same environment.

    Args:
        x: (N, D) one vector a cell, N >= 16.
        seed: of negative sampling.
        neighbours: indices and Euclidean distances, (N, K) each, K >= n_neighbours, nearest first and beginning with
            the cell itself, as scib-metrics' `NeighborsResults`; exact ones are sought where None.
        n_neighbours: how many of them count, the cell itself included.
        min_dist: least distance of points in the picture.

    Returns:
        (N, 2).

    Raises:
        Refused: TOO_FEW_CELLS; NOT_FINITE; CONSTANT where all cells have the same vector, as at the <cls> token's
            input embedding.
        ValueError: neighbours of another shape, or that leave out the cell itself.
    """
    cells = len(x)
    if cells < FEWEST:
        raise Refused("TOO_FEW_CELLS", f"a UMAP of {cells} cells says nothing; it needs at least {FEWEST}")
    if not np.isfinite(x).all():
        raise Refused("NOT_FINITE", f"{int((~np.isfinite(x)).any(axis=1).sum()):,} of {cells:,} cells hold NaN or inf")
    if (x == x[0]).all():
        raise Refused("CONSTANT", f"all {cells:,} cells have the same vector; there is nothing to lay out")
    found = _neighbours(x, n_neighbours) if neighbours is None else _checked(neighbours, cells, n_neighbours)
    return _layout(x, found, seed, n_neighbours, min_dist)


def _neighbours(x: Matrix, number: int) -> Neighbours:
    from sklearn.neighbors import NearestNeighbors

    distances, indices = NearestNeighbors(n_neighbors=number, algorithm="brute").fit(x).kneighbors(x)
    return indices, distances


def _checked(neighbours: Neighbours, cells: int, number: int) -> Neighbours:
    indices, distances = neighbours
    if indices.shape != distances.shape or indices.shape[0] != cells or indices.shape[1] < number:
        shapes = f"indices {indices.shape} and distances {distances.shape}"
        raise ValueError(f"{shapes} for {cells} cells; give both as ({cells}, K) with K >= {number}")
    # A duplicate may stand before the cell itself, at distance 0 as well.
    if (distances[:, 0] > 1e-3 * distances[:, 1:].max()).any():
        raise ValueError("neighbours must begin with the cell itself, at distance 0; the first distances are larger")
    return indices[:, :number], distances[:, :number]


def _layout(x: Matrix, neighbours: Neighbours, seed: int, n_neighbours: int, min_dist: float) -> F32:
    with warnings.catch_warnings():
        # umap-learn looks for Keras when it is imported.
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        from umap.umap_ import find_ab_params, fuzzy_simplicial_set, simplicial_set_embedding

    indices, distances = neighbours
    # A matrix product leaves a cell a little way from itself, and umap-learn measures from the nearest that is not 0.
    distances = np.where(indices == np.arange(len(x))[:, None], 0.0, distances)
    random = np.random.RandomState(seed % 2**32)
    graph, _, _ = fuzzy_simplicial_set(
        x,
        n_neighbours,
        random,
        "euclidean",
        knn_indices=indices.astype(np.int64),
        knn_dists=distances.astype(np.float32),
    )
    a, b = find_ab_params(SPREAD, min_dist)
    layout, _ = simplicial_set_embedding(
        x,
        graph,
        n_components=2,
        initial_alpha=1.0,
        a=a,
        b=b,
        gamma=1.0,
        negative_sample_rate=5,
        n_epochs=None,
        init=_first_components(x, random),
        random_state=random,
        metric="euclidean",
        metric_kwds={},
        densmap=False,
        densmap_kwds={},
        output_dens=False,
        parallel=False,
    )
    return np.asarray(layout, dtype=np.float32)


def _first_components(x: Matrix, random: np.random.RandomState) -> F32:
    """(N, 2) principal components, as large and as noisy as umap-learn makes its own starts.

    The noise moves duplicates apart, and gives cells on a line a second axis.
    """
    from sklearn.decomposition import PCA

    number = min(2, x.shape[1])
    scores = np.zeros((len(x), 2))
    scores[:, :number] = PCA(number, svd_solver="randomized", random_state=random).fit_transform(x)
    noise = random.normal(scale=1e-4, size=scores.shape)
    return np.asarray(10 * scores / np.abs(scores).max() + noise, dtype=np.float32)
