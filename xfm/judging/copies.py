"""Which cells are copies of one another, told from their vectors.

A copy in training is the answer in the test (Kapoor and Narayanan, Patterns 2023, on leakage), and public data sets
repeat cells. Rounding moves the vectors of copies apart a little; ordinary neighbours may be as near.
"""

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from xfm.core.random import rng_for

# The same cell embedded in another shard differs by up to 1e-5 where numbers are about 1. As a share of the column's
# spread, and where that is small (unit norm, a narrow layer) in the column's own units.
SAME_CELL = 1e-4
SAME_CELL_LEAST = 2e-5
# Two cells of a map of few dimensions may come as close as copies do: there only equal vectors are copies.
MIN_DIMENSIONS = 10
# A vector of more cells than this, and than this share of them, is an empty or degenerate cell, not a copied one.
MOST_COPIES, MOST_COPIES_SHARE = 50, 0.01
# Pairs of different cells that may pass for copies by chance, in expectation, over the whole column.
CHANCE_PAIRS = 0.01

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


def same_vectors(vectors: F32, seed: int, *, stored: DTypeLike = np.float32) -> I64:
    """(N, D) vectors to (N,) numbers, alike for cells whose vectors are alike up to rounding.

    Equal vectors are joined first. Then, with 10 dimensions or more, vectors that differ in no dimension by more than
    the largest of 1e-4 of the column's spread, 2e-5, and two steps of the stored type at the dimension's largest
    value; less where ordinary neighbours are that close (`_by_chance`). With fewer dimensions only equal ones count.

    No evidence of copies, so that each cell has its own number: a vector of more than 50 cells and more than 1 % of
    them (empty or degenerate cells), and a column whose every dimension is constant up to rounding.

    Args:
        vectors: (N, D).
        seed: keys the direction that cells are sorted along and the sample that neighbours are seen in.
        stored: the type the vectors were stored in, e.g. float16, whose rounding they carry.
    """
    vectors = np.ascontiguousarray(vectors + np.float32(0), np.float32)  # -0 becomes 0
    cells, dimensions = vectors.shape
    if not cells or not dimensions:
        return np.arange(cells)
    rows = vectors.view(np.dtype((np.void, vectors.itemsize * dimensions))).ravel()
    index, inverse = np.unique(rows, return_index=True, return_inverse=True)[1:]
    distinct = vectors[index]
    steps = 2 * _eps(stored) * np.abs(distinct).max(axis=0).astype(np.float64)
    spreads = distinct.std(axis=0, dtype=np.float64)
    if (spreads <= steps).all():
        return np.arange(cells)
    numbers = np.arange(len(distinct))
    if dimensions >= MIN_DIMENSIONS:
        spread = float(np.sqrt(np.mean(np.square(spreads))))
        tolerance = np.maximum(steps, max(SAME_CELL * spread, SAME_CELL_LEAST))
        numbers = _near(distinct, tolerance * _by_chance(distinct, tolerance, seed), seed)
    return _plausible(numbers[inverse.reshape(cells)])


def _eps(stored: DTypeLike) -> float:
    """Step of a floating type at 1; float32, in which vectors come, or coarser."""
    dtype = np.dtype(stored)
    coarse = float(np.finfo(dtype).eps) if np.issubdtype(dtype, np.floating) else 0.0
    return max(coarse, float(np.finfo(np.float32).eps))


def _by_chance(vectors: F32, tolerance: F64, seed: int) -> float:
    """Factor, at most 1, by which a tolerance shrinks so that different cells are not taken for copies.

    In a keyed sample the median distances to the 8th and 16th neighbour, r and s, tell how the number of neighbours
    falls with distance, as distance ** d with d = log 2 / log(s / r) (Levina and Bickel, NIPS 2004). The tolerance
    stays where `CHANCE_PAIRS` are expected, and below a tenth of r. Few neighbours, so that they are of one cell type;
    more than a cell has copies.
    """
    cells = len(vectors)
    n_seen = min(cells, 4096)
    k = min(8, n_seen // 3)
    if not k:
        return 0.0
    seen = vectors[rng_for(seed, "neighbours").permutation(cells)[:n_seen]] / tolerance
    distances = np.sort(cdist(seen[:512], seen, "chebyshev"), axis=1)[:, [k, 2 * k]]  # 0 is the cell itself
    near, far = (float(each) for each in np.median(distances, axis=0))
    if not near > 0:
        return 0.0
    expected = 0.5 * cells * k * cells / n_seen  # pairs that are as near as `near`
    by_dimension = near * (CHANCE_PAIRS / expected) ** (np.log2(far / near)) if far > near else near
    return float(min(1.0, by_dimension, near / 10))


def _near(vectors: F32, tolerance: F64, seed: int) -> I64:
    """(N,) numbers, alike for vectors within the tolerance in every dimension, or tied by others that are.

    Cells are sorted along one random direction, where near ones are neighbours. Pairs are compared in the eight
    widest dimensions first, then in full, and not at all where others have tied them already.
    """
    cells = len(vectors)
    if not (tolerance > 0).all():
        return np.arange(cells)
    direction = rng_for(seed, "copies").standard_normal(vectors.shape[1])
    along = (vectors - vectors.mean(axis=0, dtype=np.float64)) @ (direction / tolerance)
    order = np.argsort(along, kind="stable")
    along, gap = along[order], float(np.abs(direction).sum())
    widest = np.argsort(-vectors.std(axis=0, dtype=np.float64) / tolerance)[:8]
    few = np.ascontiguousarray(vectors[:, widest])
    pairs, labels = [np.empty((2, 0), np.int64)], np.arange(cells)
    start = np.arange(cells)  # whoever is farther than the gap from one neighbour is from the next
    for step in range(1, cells):
        start = start[start < cells - step]
        start = start[along[start + step] - along[start] <= gap]
        if not len(start):
            break
        left, right = order[start], order[start + step]
        untied = labels[left] != labels[right]
        left, right = left[untied], right[untied]
        for values, limits in ((few, tolerance[widest]), (vectors, tolerance)):
            same = (np.abs(values[left] - values[right]) <= limits).all(axis=1)
            left, right = left[same], right[same]
        if len(left):
            pairs.append(np.stack([left, right]))
        if step & (step - 1) == 0:
            labels = components(np.hstack(pairs), cells)
    return components(np.hstack(pairs), cells)


def _plausible(numbers: I64) -> I64:
    """Numbers of more cells than are ever copied fall apart into single cells."""
    counts = np.bincount(numbers)
    many = np.flatnonzero((counts > max(MOST_COPIES, MOST_COPIES_SHARE * len(numbers)))[numbers])
    numbers = numbers.copy()
    numbers[many] = len(counts) + np.arange(len(many))
    return np.unique(numbers, return_inverse=True)[1].astype(np.int64).reshape(len(numbers))


def components(pairs: I64, nodes: int) -> I64:
    """(nodes,) numbers, alike for nodes that the (2, P) pairs tie together."""
    graph = coo_matrix((np.ones(pairs.shape[1], np.int8), (pairs[0], pairs[1])), shape=(nodes, nodes))
    labels: I64 = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels
