"""Silhouettes: how much nearer a cell is to its own class than to the nearest other one.

Rousseeuw, J Comput Appl Math 1987. scikit-learn's definition and, as there, distances from products in float64; each
pair of cells is visited once, and sums over classes are taken block by block, so that no (N, N) matrix exists.

Reference implementation: sklearn.metrics.silhouette_samples.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfm.metrics.resampling import F64, Ints

# Shapes: N cells, D width of the representation, L classes, b cells of one block.
BLOCK = 1024  # cells; a block of distances has 8 MB


def silhouette_samples(representation: NDArray[np.floating[Any]], classes: Ints) -> F64:
    """(N,) silhouette of every cell, from -1 to 1; 0 for the only cell of a class, and where all distances are 0.

    Classes are any integers, from 2 to N - 1 different ones.

    Raises:
        ValueError: one class only, or as many as cells.
    """
    _, codes, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    if not 2 <= len(sizes) < len(codes):
        raise ValueError(f"a silhouette needs 2 to {len(codes) - 1} classes, found {len(sizes)}")
    order = np.argsort(codes, kind="stable")
    sums = np.empty((len(codes), len(sizes)))
    sums[order] = _distance_sums(representation[order], codes[order], len(sizes))
    own = np.arange(len(codes)), codes
    within = sums[own] / np.maximum(sizes[codes] - 1, 1)
    sums /= sizes
    sums[own] = np.inf
    between = sums.min(axis=1)
    larger = np.maximum(within, between)
    is_defined = (sizes[codes] > 1) & (larger > 0)
    out: F64 = np.divide(between - within, larger, out=np.zeros(len(codes)), where=is_defined)
    return out


def _distance_sums(ordered: NDArray[np.floating[Any]], codes: Ints, n_classes: int) -> F64:
    """(N, L) sums of Euclidean distances from each cell to the cells of each class; cells ordered by class."""
    mean = ordered.mean(axis=0, dtype=np.float64)
    sums = np.zeros((len(codes), n_classes))
    slices = [slice(start, start + BLOCK) for start in range(0, len(codes), BLOCK)]
    for number, rows in enumerate(slices):
        a = ordered[rows] - mean  # float64, a block at a time
        for columns in slices[number:]:
            distances = _distances(a, a if columns is rows else ordered[columns] - mean)
            _add_by_class(sums[rows], distances, codes[columns])
            if columns is not rows:
                _add_by_class(sums[columns], distances.T, codes[rows])
    return sums


def _distances(a: F64, b: F64) -> F64:
    """Euclidean distances of (m, D) and (n, D) vectors: (m, n)."""
    squared = a @ b.T
    squared *= -2
    squared += np.einsum("md,md->m", a, a)[:, None]
    squared += np.einsum("nd,nd->n", b, b)
    np.maximum(squared, 0.0, out=squared)
    return np.sqrt(squared, out=squared)


def _add_by_class(sums: F64, distances: F64, codes: Ints) -> None:
    """Adds (m, n) distances to (m, L) sums over the classes of the n cells; a block of ordered cells holds few."""
    first, last = int(codes[0]), int(codes[-1])
    is_of_class = codes[:, None] == np.arange(first, last + 1)
    sums[:, first : last + 1] += distances @ is_of_class.astype(np.float64)
