"""Exact nearest neighbours of cells, and the weighted graph that UMAP makes of them.

Neighbours are counted as scib-metrics' `NeighborsResults` counts them: a cell is its own first neighbour, at distance
0, so 15 neighbours are 14 others. The graph is UMAP's fuzzy union (McInnes, Healy, Melville 2018, section 3.1), the one
that scanpy and scib-metrics cluster, by the very function of umap-learn that both call.

Reference implementations: sklearn.neighbors.NearestNeighbors(algorithm="brute"); scanpy.pp.neighbors.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix

# Shapes: N cells, D width of the representation, K neighbours.
F32 = NDArray[np.float32]
Matrix = NDArray[np.floating[Any]]

# What the entropy of cz-benchmarks looks at; LISI takes the first 90, kBET 50, clustering 15, as scib-metrics.
MOST = 200
IN_GRAPH = 15
SAME = 1e-5  # of the largest number: how far embeddings of one cell may differ between two ways of sharding
CANCELLED = 1e-7  # of the squared norms: below, a squared distance from products has lost more than half its digits
PAIRS_AT_ONCE = 8192  # 2048 wide and in float64, 128 MB


class Neighbours(NamedTuple):
    """The nearest cells of each cell, itself first, then by distance, then by number."""

    indices: NDArray[np.int32]  # (N, K)
    distances: F32  # (N, K) Euclidean; exactly 0 between duplicates

    def first(self, k: int) -> "Neighbours":
        """The k nearest of them; all where there are fewer."""
        return Neighbours(np.ascontiguousarray(self.indices[:, :k]), np.ascontiguousarray(self.distances[:, :k]))


def is_constant(representation: Matrix) -> bool:
    """Whether all (N, D) rows are the same up to rounding, as `cls` is in the input embedding; of any scale."""
    largest = float(np.abs(representation).max(initial=0.0))
    return bool(np.ptp(representation, axis=0).max(initial=0.0) <= SAME * largest)


def neighbours(representation: Matrix, k: int = MOST) -> Neighbours:
    """The k exact Euclidean neighbours, the cell itself included, of (N, D) cells; N where there are fewer cells.

    The same for the same input. Among cells equally far away at the k-th place, which ones are kept is scikit-learn's
    choice.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    from sklearn.neighbors import NearestNeighbors

    cells = len(representation)
    if not np.isfinite(representation).all():
        lines = int((~np.isfinite(representation)).any(axis=1).sum())
        raise ValueError(f"{lines:,} of {cells:,} cells hold NaN or infinite numbers, which have no neighbours")
    # Distances do not feel a shift, their rounding does: a collapsed layer is a large mean and small differences.
    mean = representation.mean(axis=0, dtype=np.float64).astype(representation.dtype)
    points = (representation - mean).astype(np.float32, copy=False)
    search = NearestNeighbors(n_neighbors=min(k, cells), algorithm="brute").fit(points)
    distances, indices = search.kneighbors(points)
    norms = np.einsum("nd,nd->n", points, points, dtype=np.float64)
    _recompute(representation, distances**2 <= CANCELLED * (norms[:, None] + norms[indices]), indices, distances)
    itself = np.arange(cells)
    # More duplicates than places push a cell out of its own list.
    lost = (indices != itself[:, None]).all(axis=1)
    indices[lost, -1], distances[lost, -1] = itself[lost], 0.0
    distances = distances.astype(np.float32)
    order = np.lexsort((indices, distances, indices != itself[:, None]), axis=-1)
    indices, distances = (np.take_along_axis(each, order, axis=1) for each in (indices, distances))
    return Neighbours(indices.astype(np.int32), distances)


def connectivities(found: Neighbours, k: int = IN_GRAPH) -> csr_matrix:
    """UMAP's fuzzy graph of the k nearest neighbours, the cell itself included.

    (N, N) float32 symmetric weights in (0, 1], nothing on the diagonal. The first call in a process costs seconds,
    umap-learn being compiled.
    """
    import numba

    with warnings.catch_warnings():
        # umap-learn looks for Keras when it is imported.
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        from umap.umap_ import fuzzy_simplicial_set

    used, cells = found.first(k), len(found.indices)
    if used.indices.shape[1] < 2:
        return csr_matrix((cells, cells), dtype=np.float32)
    threads = numba.get_num_threads()
    numba.set_num_threads(1)  # it takes a mean in parallel, whose last digits depend on threads
    try:
        points, number = coo_matrix((cells, 1)), used.indices.shape[1]
        graph, _, _ = fuzzy_simplicial_set(
            points, number, None, None, knn_indices=used.indices, knn_dists=used.distances
        )
    finally:
        numba.set_num_threads(threads)
    return csr_matrix(graph)


def _recompute(
    representation: Matrix, is_rounding: NDArray[np.bool_], indices: NDArray[Any], distances: NDArray[np.float64]
) -> None:
    """Replaces those (N, K) distances that are mostly rounding: 1e-7 instead of 0 would be UMAP's nearest neighbour."""
    rows, places = np.nonzero(is_rounding)
    for start in range(0, len(rows), PAIRS_AT_ONCE):
        row, place = rows[start : start + PAIRS_AT_ONCE], places[start : start + PAIRS_AT_ONCE]
        apart = representation[row].astype(np.float64) - representation[indices[row, place]]
        distances[row, place] = np.sqrt(np.einsum("pd,pd->p", apart, apart))
