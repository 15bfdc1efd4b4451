"""Errors and correlations of predictions within one cell, and their merging over cells and shards.

A cell's numbers are sums, so merging shards adds them up; means are taken last. Correlations that are not defined
(a vector that is constant, or that is constant but for rounding) are NaN here and counted by whoever reports them; they
never become 0.

Reference implementations: scipy.stats.pearsonr and spearmanr, sklearn.metrics.mean_squared_error.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

F64 = NDArray[np.float64]

# Columns of `cell_sums`, in order.
SUMS = ("n", "squared_error", "absolute_error", "pearson", "spearman")

# Least spread, relative to the size of its terms, of a vector computed in float32 that is correlated with another.
# Rounding of relative size e moves a correlation by up to about e / spread. Sums of a network in another order (batch,
# CPU, threads) differ by up to some 10 units of 2**-23, about 2**-20; at a spread of 2**-13 a correlation then moves by
# 2**-7, less than 0.01, and by less than that wherever the spread is wider.
LEAST_SPREAD = 2.0**-13

RESAMPLES_AT_ONCE = 32  # one product of matrices instead of many passes over the cells


def cell_sums(predicted: F64, target: F64, target_ranks: F64 | None = None, *, float32_terms: F64 | None = None) -> F64:
    """Sums of one cell.

    Args:
        predicted: (G,) predictions.
        target: (G,) truths, G >= 1.
        target_ranks: (G,) `rankdata(target)`, where many predictions meet one target.
        float32_terms: (G,) for predictions that are sums of float32 numbers: the root of the summed squares of the
            terms of each, of which its rounding is a fraction. None: predictions are exact to float64.

    Returns:
        (5,) in the order of SUMS: count, summed squared error, summed absolute error, Pearson and Spearman r. Both
        correlations are NaN where the predictions are constant but for rounding, see `is_spread`.
    """
    error = predicted - target
    r, rank_r = float("nan"), float("nan")
    if float32_terms is None or is_spread(predicted, float32_terms):
        r = pearson(predicted, target)
        rank_r = pearson(rankdata(predicted), rankdata(target) if target_ranks is None else target_ranks)
    return np.array([len(target), np.dot(error, error), np.abs(error).sum(), r, rank_r])


def is_spread(values: F64, terms: F64) -> bool:
    """Whether (G,) float32 values differ by more than rounding explains: by more than LEAST_SPREAD of their size.

    Below that a correlation is mostly the order in which a CPU adds numbers, and so are the ranks.

    Args:
        values: (G,).
        terms: (G,) root of the summed squares of the float32 terms that each value is the sum of, whose rounding errors
            add up as independent ones do; a constant of float64 is no such term.
    """
    return bool(np.linalg.norm(values - values.mean()) > LEAST_SPREAD * np.linalg.norm(terms))


def pearson(a: F64, b: F64) -> float:
    """Pearson correlation of two (G,) vectors; NaN where either is constant or G < 2."""
    # A vector is constant if it deviates by no more than rounding, as scipy.stats.pearsonr judges it.
    da, db = a - a.mean(), b - b.mean()
    na, nb = np.linalg.norm(da), np.linalg.norm(db)
    tiny = 1e-13
    if len(a) < 2 or na <= tiny * abs(a.mean()) or nb <= tiny * abs(b.mean()) or na == 0 or nb == 0:
        return float("nan")
    return float(np.clip(np.dot(da / na, db / nb), -1.0, 1.0))


def bootstrap(cells: int, statistic: list[F64], rng: np.random.Generator, resamples: int, level: float = 0.95) -> F64:
    """Percentile interval of ratios of sums over cells, all ratios on the same resamples.

    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13. Cells are resampled, not single genes:
    genes of one cell are not independent.

    Args:
        cells: number of cells C.
        statistic: [numerators (C, S), denominators (C, S)]; statistic s is sum(numerator) / sum(denominator).
        rng: draws the resamples.
        resamples: how many.
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
    cells = len(sums)
    out = np.empty((resamples, sums.shape[1]))
    for start in range(0, resamples, RESAMPLES_AT_ONCE):
        block = out[start : start + RESAMPLES_AT_ONCE]
        draws = [np.bincount(rng.integers(0, cells, cells), minlength=cells) for _ in block]
        np.matmul(np.stack(draws).astype(np.float64), sums, out=block)
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
