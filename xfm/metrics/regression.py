"""How well numbers are predicted: sums within one cell, and scores over rows with their draws over groups.

Within a cell (`cell_sums`): its numbers are sums, so merging shards adds them up; means are taken last. Correlations
that are not defined (a vector that is constant, or that is constant but for rounding) are NaN here and counted by
whoever reports them; they never become 0.

Over rows (`regression_scores`): R² compares with the mean of the rows that are scored, as scikit-learn's does, so that
the mean of training rows, for all, has an R² of 0 or less. A score that is not defined is NaN: R² of a constant truth,
and correlations of a constant truth or a constant prediction. In a resample whole groups are drawn, and ranks are those
of the resample.

Reference implementations: scipy.stats.pearsonr and spearmanr, sklearn.metrics.mean_squared_error, mean_absolute_error
and r2_score.
"""

# Shapes: N rows, G groups (genes of a cell in `cell_sums`), b resamples of a block, U distinct values.

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import rankdata

from xfm.metrics.resampling import F64, GroupDraws, Ints, Resampled, bootstrap, group_sums, ratios, weighted_sums

# Columns of `cell_sums`, in order.
SUMS = ("n", "squared_error", "absolute_error", "pearson", "spearman")

# Least spread, relative to the size of its terms, of a vector computed in float32 that is correlated with another.
# Rounding of relative size e moves a correlation by up to about e / spread. Sums of a network in another order (batch,
# CPU, threads) differ by up to some 10 units of 2**-23, about 2**-20; at a spread of 2**-13 a correlation then moves by
# 2**-7, less than 0.01, and by less than that wherever the spread is wider.
LEAST_SPREAD = 2.0**-13

SCORES = ("r2", "mae", "pearson", "spearman")
FLAT = 1e-10  # a sum of squares below this share of the uncentred one is rounding: the values are all the same


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


def regression_scores(truth: F64, predicted: F64) -> dict[str, float]:
    """{name of SCORES: score} of (N,) predictions against (N,) truth, N >= 1."""
    found = _statistic(truth, predicted, np.zeros(len(truth), np.int64), 1)(np.ones((1, 1)))
    return {name: float(value[0]) for name, value in found.items()}


def bootstrap_regression(truth: F64, predicted: F64, draws: GroupDraws) -> dict[str, Resampled]:
    """The same with draws over groups: {name of SCORES: value, (B,)}."""
    return bootstrap(draws, _statistic(truth, predicted, draws.codes, draws.n_groups))


def _statistic(truth: F64, predicted: F64, codes: Ints, n_groups: int) -> Callable[[NDArray[Any]], dict[str, F64]]:
    """A function of (b, G) weights of groups."""
    if truth.shape != predicted.shape or truth.ndim != 1 or not len(truth):
        raise ValueError(f"truth {truth.shape} and predictions {predicted.shape} do not match row by row")
    if not (np.isfinite(truth).all() and np.isfinite(predicted).all()):
        raise ValueError("truth or predictions hold NaN or infinity; leave such rows out")
    y, p, error = _centred(truth), _centred(predicted), predicted - truth
    columns = np.stack([np.ones(len(y)), y, y * y, p, p * p, y * p, error * error, np.abs(error)], axis=1)
    sums = group_sums(codes, n_groups, columns)
    ranks_of = [_Ranks(values, codes, n_groups) for values in (truth, predicted)]

    def statistic(weights: NDArray[Any]) -> dict[str, F64]:
        n, sy, syy, sp, spp, syp, squared, absolute = weighted_sums(weights, sums).T
        total, spread = _spread(n, sy, syy), _spread(n, sp, spp)
        return {
            "r2": 1 - ratios(squared, total),
            "mae": ratios(absolute, n),
            "pearson": np.clip(ratios(syp - ratios(sy * sp, n), np.sqrt(total * spread)), -1, 1),
            "spearman": _spearman(weights, codes, *ranks_of),
        }

    return statistic


def _centred(values: F64) -> F64:
    """Less their mean; exactly 0 where they are all the same."""
    return np.zeros(len(values)) if values.min() == values.max() else values - values.mean()


def _spread(n: F64, summed: F64, squares: F64) -> F64:
    """(b,) sums of squared deviations from the mean of each resample; 0 where its values are all the same."""
    found = squares - ratios(summed * summed, n)
    return np.where(found > FLAT * squares, found, 0.0)


class _Ranks:
    """Ranks within resamples, ties sharing theirs, as scipy.stats.rankdata gives them.

    Args:
        values: (N,) to rank.
        codes: (N,) group of each row.
        n_groups: G.
    """

    def __init__(self, values: F64, codes: Ints, n_groups: int) -> None:
        distinct, self.place = np.unique(values, return_inverse=True)
        shape = (n_groups, len(distinct))
        self.counts = sparse.coo_array((np.ones(len(values)), (codes, self.place)), shape=shape).tocsr()

    def of(self, weights: NDArray[Any]) -> tuple[F64, F64]:
        """(b, N) ranks, centred, and (b,) their summed squares over each resample."""
        drawn = weighted_sums(weights, self.counts)  # (b, U) how often each value is drawn
        ranks = np.cumsum(drawn, axis=1) - drawn / 2
        ranks -= drawn.sum(axis=1, keepdims=True) / 2  # the mean rank is (n + 1) / 2; both halves cancel
        return ranks[:, self.place], (drawn * ranks * ranks).sum(axis=1)


def _spearman(weights: NDArray[Any], codes: Ints, truth: _Ranks, predicted: _Ranks) -> F64:
    (a, squares_a), (b, squares_b) = truth.of(weights), predicted.of(weights)
    together = np.einsum("bn,bn,bn->b", weights[:, codes].astype(np.float64), a, b)
    return np.clip(ratios(together, np.sqrt(squares_a * squares_b)), -1, 1)
