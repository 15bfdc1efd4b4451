"""LISI: how many classes the neighbourhood of a cell holds, effectively.

Korsunsky et al., Nature Methods 2019 (Harmony), Methods. The neighbours of a cell weigh exp(-beta * distance). A
bisection finds the beta of each cell at which its weights have a given perplexity. LISI is the inverse Simpson index:
1 / the sum of the squared shares of the classes in these weights.

This is scib-metrics 0.5.10 step by step, in NumPy, with one difference: double precision, and distances counted from
the nearest neighbour, which leaves the weights as they are. In single precision exp(-beta * distance) is 0 beyond a
product of about 100. Where all neighbours are far away compared with how their distances differ, as in wide
representations, scib-metrics therefore stops at another perplexity: in two random batches of 2,000 normal
vectors 512 wide, iLISI is 0.920 there, 0.896 here and 0.896 there in double precision (`jax_enable_x64`).

Reference implementation: scib_metrics.lisi_knn.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from xfm.metrics.neighbours import Neighbours
from xfm.metrics.resampling import F64, Ints

# Shapes: N cells, C cells of one chunk, K neighbours.
FEWEST_NEIGHBOURS = 6  # the perplexity is a third of it, and that of a single neighbour is 1
TOLERANCE = 1e-5  # of the entropy in nats, the logarithm of the perplexity
TRIES = 50
CELLS_AT_ONCE = 2048  # of 90 neighbours: about 10 MB


def lisi(found: Neighbours, codes: Ints) -> F64:
    """(N,) local inverse Simpson index of each cell, from 1 to the number of classes, up to rounding.

    Args:
        found: K neighbours of each cell; the cell itself is among them and does not count. The perplexity is K // 3.
        codes: (N,) classes, from 0.

    Raises:
        ValueError: fewer than 6 neighbours, or not as many classes as cells.
    """
    cells, k = found.indices.shape
    if k < FEWEST_NEIGHBOURS:
        raise ValueError(f"LISI of {k} neighbours: at least {FEWEST_NEIGHBOURS} are needed, the cell itself included")
    if len(codes) != cells:
        raise ValueError(f"LISI of {cells} cells needs as many classes, {len(codes)} are given")
    values = np.empty(cells)
    for start in range(0, cells, CELLS_AT_ONCE):
        chunk = slice(start, start + CELLS_AT_ONCE)
        indices = found.indices[chunk]
        is_other = indices != np.arange(start, start + len(indices))[:, None]
        weights = _weights(found.distances[chunk], is_other, math.log(k // 3))
        values[chunk] = 1 / _simpson(weights, codes[indices])
    return values


def _weights(distances: NDArray[Any], is_other: NDArray[np.bool_], target: float) -> F64:
    """(C, K) weights of neighbours whose entropy in nats is the target; rows add up to 1, a cell itself has no weight.

    The entropy is the last one tried where none is near enough: more duplicates than the perplexity share the weight
    alike at any beta.
    """
    nearest = np.min(distances, axis=1, keepdims=True, where=is_other, initial=np.inf)
    apart = np.where(is_other, distances.astype(np.float64) - nearest, 0.0)
    rows, beta = np.arange(len(apart)), np.ones(len(apart))
    low, high = np.zeros(len(apart)), np.full(len(apart), np.inf)
    weights, entropy = _weights_at(beta, apart, is_other)
    for _ in range(TRIES):
        is_open = np.abs(entropy - target) >= TOLERANCE
        if not is_open.any():
            break
        rows, apart, is_other = rows[is_open], apart[is_open], is_other[is_open]
        beta, low, high, entropy = beta[is_open], low[is_open], high[is_open], entropy[is_open]
        is_wide = entropy > target
        low, high = np.where(is_wide, beta, low), np.where(is_wide, high, beta)
        beta = np.where(np.isinf(high), beta * 2, (low + high) / 2)
        weights[rows], entropy = _weights_at(beta, apart, is_other)
    return weights


def _weights_at(beta: F64, apart: F64, is_other: NDArray[np.bool_]) -> tuple[F64, F64]:
    """Weights (C, K) at a beta (C,) each, and their entropies (C,) in nats."""
    exponents = beta[:, None] * apart
    weights = np.where(is_other, np.exp(-exponents), 0.0)
    total = weights.sum(axis=1)  # at least 1: the nearest neighbour
    weights /= total[:, None]
    return weights, np.log(total) + np.einsum("ck,ck->c", exponents, weights)


def _simpson(weights: F64, classes: Ints) -> F64:
    """(C,) sums of the squared shares of the classes (C, K) of neighbours with weights (C, K)."""
    cells, k = classes.shape
    # A row a cell, a column a class. Sparse: with a batch for every cell, a dense table would be N wide.
    starts = np.arange(0, cells * k + 1, k)
    shares = csr_array((weights.ravel(), classes.ravel(), starts), shape=(cells, int(classes.max()) + 1), copy=True)
    shares.sum_duplicates()
    return np.asarray(shares.power(2).sum(axis=1), dtype=np.float64)
