"""How well a number is predicted: R², mean absolute error and correlations, with their draws over groups.

R² compares with the mean of the rows that are scored, as scikit-learn's does, so that the mean of training rows, for
all, has an R² of 0 or less. A score that is not defined is NaN: R² of a constant truth, and correlations of a constant
truth or a constant prediction. In a resample whole groups are drawn, and ranks are those of the resample.

Reference implementations: sklearn.metrics.r2_score, mean_absolute_error; scipy.stats.pearsonr, spearmanr.
"""

# Shapes: N rows, G groups, b resamples of a block, U distinct values.

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from xfm.metrics.regression import F64, ratios
from xfm.metrics.resampling import GroupDraws, Resampled, bootstrap, group_sums, weighted_sums

SCORES = ("r2", "mae", "pearson", "spearman")
FLAT = 1e-10  # a sum of squares below this share of the uncentred one is rounding: the values are all the same

Ints = NDArray[np.integer[Any]]


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
