"""The bootstrap over groups: donors are drawn, not cells, and every representation meets the same draws.

Cells of one donor resemble each other, so an interval from resampled cells is too narrow; whole groups are drawn
instead (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). A statistic sees a resample
as weights: how often each group was drawn. Sums over cells are taken once per group and then weighted, so a resample
costs one product. Draw i is a function of (seed, i, number of groups) alone: scores of two representations of the same
cells may be subtracted draw by draw.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from xfm.core.random import rng_for
from xfm.core.report import Estimate

# Shapes: N cells, G groups, B resamples, b resamples of one block, S sums.
F64 = NDArray[np.float64]
U16 = NDArray[np.uint16]
Ints = NDArray[np.integer[Any]]

RESAMPLES = 2000
BLOCK = 64  # resamples at once: 50,000 groups x 64 x (2 + 8 bytes) are 32 MB
CELLS_BLOCK = 32  # resamples of cells at once: one product of matrices instead of many passes over the cells


class Resampled(NamedTuple):
    """A score of the data as they are, and of every resample."""

    value: float
    draws: F64  # (B,) NaN where the resample does not define the score


class GroupDraws:
    """How often each group is drawn in each of B resamples; made block by block, never held.

    Attributes:
        codes: (N,) group of each cell, 0 to G - 1, every group present.
        n_groups: G.
        seed: with the number of the resample, the key of a draw.
        resamples: B.
    """

    def __init__(self, codes: Ints, seed: int, resamples: int = RESAMPLES) -> None:
        """Takes (N,) integers that tell groups apart; groups without a cell are never drawn."""
        if codes.ndim != 1 or len(codes) == 0:
            raise ValueError(f"one group code a cell and at least one cell needed, found the shape {codes.shape}")
        groups, inverse = np.unique(codes, return_inverse=True)
        self.codes: NDArray[np.int64] = inverse.astype(np.int64)
        self.n_groups = len(groups)
        self.seed = seed
        self.resamples = resamples

    def blocks(self, size: int = BLOCK) -> Iterator[U16]:
        """Weights of resamples 0 to B - 1 in their order, as (b, G) with b <= size; the same for every size."""
        for start in range(0, self.resamples, size):
            numbers = range(start, min(start + size, self.resamples))
            yield np.vstack([draw_groups(self.n_groups, rng_for(self.seed, f"resample {i}"), 1) for i in numbers])


def draw_groups(n_groups: int, rng: np.random.Generator, resamples: int) -> U16:
    """(resamples, n_groups) how often each group is drawn when as many as there are get drawn with replacement."""
    drawn = np.empty((resamples, n_groups), dtype=np.uint16)
    for row in drawn:
        row[:] = np.bincount(rng.integers(0, n_groups, n_groups), minlength=n_groups)
    return drawn


def group_sums(codes: Ints, n_groups: int, columns: Any) -> Any:
    """(G, S) sums of (N, S) columns over the cells of each group: an array for an array, csr for scipy.sparse."""
    cells = len(codes)
    if columns.shape[0] != cells:
        raise ValueError(f"{cells} cells have a group, {columns.shape[0]} have columns to sum")
    belongs = sparse.csr_array((np.ones(cells, dtype=np.int64), (codes, np.arange(cells))), shape=(n_groups, cells))
    return belongs @ columns


def weighted_sums(weights: NDArray[Any], sums: Any) -> F64:
    """(B, S) sums of resamples from (B, G) weights of groups and their (G, S) sums, dense or scipy.sparse; exact for
    counts below 2**53."""
    out = np.empty((len(weights), sums.shape[1]))
    is_sparse = sparse.issparse(sums)
    wide = sums.T.astype(np.float64) if is_sparse else np.asarray(sums, dtype=np.float64)
    for start in range(0, len(weights), BLOCK):
        block = weights[start : start + BLOCK].astype(np.float64)
        # Sparse sums are the left factor: a non-zero count then costs one step over contiguous resamples.
        out[start : start + BLOCK] = (wide @ np.ascontiguousarray(block.T)).T if is_sparse else block @ wide
    return out


def bootstrap(draws: GroupDraws, statistic: Callable[[NDArray[Any]], dict[str, F64]]) -> dict[str, Resampled]:
    """Statistics of the data and of every resample.

    Args:
        statistic: (b, G) weights of groups to named (b,) scores, NaN where a score is undefined.

    Returns:
        Each score with its B draws. A single group is drawn every time and would claim certainty: its draws are NaN.
    """
    observed = statistic(np.ones((1, draws.n_groups), dtype=np.uint16))
    if draws.n_groups == 1:
        return {name: Resampled(float(value[0]), np.full(draws.resamples, np.nan)) for name, value in observed.items()}
    blocks = [statistic(weights) for weights in draws.blocks()]
    return {
        name: Resampled(float(value[0]), np.concatenate([np.empty(0), *(block[name] for block in blocks)]))
        for name, value in observed.items()
    }


def estimate(value: float, draws: F64) -> Estimate | None:
    """A score with its 95 % percentile interval over the draws that define it.

    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

    Returns:
        None where the score itself is undefined; ends are NaN where no draw defines it.
    """
    if not np.isfinite(value):
        return None
    low, high = percentile_interval(draws[:, None])[:, 0]
    return Estimate(value=float(value), low=float(low), high=float(high))


def bootstrap_cells(
    cells: int, statistic: list[F64], rng: np.random.Generator, resamples: int, level: float = 0.95
) -> F64:
    """Percentile interval of ratios of sums over cells, all ratios on the same resamples.

    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13. Cells are resampled, not single genes:
    genes of one cell are not independent.

    Args:
        statistic: [numerators (C, S), denominators (C, S)]; statistic s is sum(numerator) / sum(denominator).
        level: coverage.

    Returns:
        (2, S) lower and upper ends.
    """
    top, bottom = statistic
    if not len(top) == len(bottom) == cells:
        raise ValueError(f"{cells} cells announced, sums of {len(top)} and {len(bottom)} given")
    drawn = resampled_sums(np.hstack([top, bottom]), rng, resamples)
    return percentile_interval(ratios(*np.hsplit(drawn, 2)), level)


def resampled_sums(sums: F64, rng: np.random.Generator, resamples: int) -> F64:
    """(C, K) numbers per cell to (resamples, K) sums over as many cells, drawn with replacement."""
    out = np.empty((resamples, sums.shape[1]))
    for start in range(0, resamples, CELLS_BLOCK):
        block = out[start : start + CELLS_BLOCK]
        np.matmul(draw_groups(len(sums), rng, len(block)).astype(np.float64), sums, out=block)
    return out


def ratios(top: F64, bottom: F64) -> F64:
    """top / bottom; NaN where the bottom is 0, as for a correlation that no drawn cell defines."""
    out: F64 = np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom != 0)
    return out


def percentile_interval(drawn: F64, level: float = 0.95) -> F64:
    """(resamples, S) values to the (2, S) ends, over the resamples that define a value; NaN where none does."""
    tail = (1 - level) / 2
    ends = np.full((2, drawn.shape[1]), np.nan)
    some = np.isfinite(drawn).any(axis=0)
    ends[:, some] = np.nanquantile(drawn[:, some], [tail, 1 - tail], axis=0)
    return ends
