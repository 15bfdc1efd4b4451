"""Scores of ranked guesses: the first one right, one of the first five right, every class alike, and how sure.

Names as in CLIP_benchmark: acc1 is `accuracy`, mean per-class recall is `balanced_accuracy` (one number, see
classification.py), acc5 is taken where there are more than five classes: with five it is 1 by definition.
All scores of a representation come from one pass over the resamples.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xfm.metrics.calibration import gap_sums, weighted_error
from xfm.metrics.classification import group_counts, scores_of_counts
from xfm.metrics.regression import ratios
from xfm.metrics.resampling import F64, GroupDraws, Ints, Resampled, bootstrap, group_sums, weighted_sums

# Shapes: N rows, K classes, T guesses a row, best first.
TOP = 5


class Pair(NamedTuple):
    """A class and what it is taken for."""

    truth: int
    predicted: int
    rows: int
    share: float
    """Of the rows of the true class."""


def is_hit(truth: Ints, ranked: NDArray[Any], k: int) -> NDArray[np.bool_]:
    """(N,) whether the true class is among the first k guesses.

    Args:
        truth: (N,) classes.
        ranked: (N, T) guessed classes, best first.
        k: how many count; at most T.

    Raises:
        ValueError: fewer guesses than k.
    """
    if ranked.ndim != 2 or ranked.shape[1] < k or len(ranked) != len(truth):
        raise ValueError(f"the first {k} guesses of {len(truth)} rows were asked for, found the shape {ranked.shape}")
    found: NDArray[np.bool_] = (ranked[:, :k] == np.asarray(truth)[:, None]).any(axis=1)
    return found


def has_top(n_classes: int) -> bool:
    """Whether acc5 says anything: with five classes or fewer it is 1."""
    return n_classes > TOP


def bootstrap_ranked(
    truth: Ints,
    ranked: NDArray[Any],
    n_classes: int,
    draws: GroupDraws,
    confidence: NDArray[Any] | None = None,
) -> dict[str, Resampled]:
    """All scores with their draws over groups.

    Args:
        truth: (N,) classes, 0 to K - 1.
        ranked: (N, T) guessed classes, best first; without five of them there is no acc5.
        n_classes: K.
        draws: resamples.
        confidence: (N,) probability of the first guess; None leaves `ece` out.

    Returns:
        accuracy, balanced_accuracy, f1, precision, then acc5 and ece where they are defined. Draws of `ece` are moved
        to have the value as their mean: an absolute gap only grows by resampling.
    """
    predicted = ranked[:, 0]
    counts = group_counts(truth, predicted, n_classes, draws.codes, draws.n_groups)
    columns = [np.ones(len(truth))]
    with_top = has_top(n_classes) and ranked.shape[1] >= TOP
    if with_top:
        columns.append(is_hit(truth, ranked, TOP).astype(np.float64))
    sums = group_sums(draws.codes, draws.n_groups, np.stack(columns, axis=1))
    gaps = None
    if confidence is not None:
        gaps = gap_sums(confidence, predicted == truth, draws.codes, draws.n_groups)

    def statistic(weights: NDArray[Any]) -> dict[str, F64]:
        found = scores_of_counts(*np.split(weighted_sums(weights, counts), 3, axis=1))
        totals = weighted_sums(weights, sums)
        if with_top:
            found["acc5"] = ratios(totals[:, 1], totals[:, 0])
        if gaps is not None:
            found["ece"] = weighted_error(weights, gaps, totals[:, 0])
        return found

    scores = bootstrap(draws, statistic)
    if "ece" in scores:
        scores["ece"] = _centred(scores["ece"])
    return scores


def bootstrap_class_recall(truth: Ints, predicted: Ints, n_classes: int, draws: GroupDraws) -> list[Resampled]:
    """Recall of each of K classes with its draws over groups; NaN where the truth, or a resample of it, lacks it."""
    counts = group_counts(truth, predicted, n_classes, draws.codes, draws.n_groups)[:, : 2 * n_classes]

    def statistic(weights: NDArray[Any]) -> dict[str, F64]:
        hits, support = np.split(weighted_sums(weights, counts), 2, axis=1)
        recall = ratios(hits, support)
        return {str(number): recall[:, number] for number in range(n_classes)}

    found = bootstrap(draws, statistic)
    return [found[str(number)] for number in range(n_classes)]


def confused_pairs(confusion: NDArray[np.integer[Any]], most: int) -> list[Pair]:
    """The most frequent mistakes, most rows first; of equals the larger share of its class, then the earlier class."""
    wrong = confusion - np.diag(np.diagonal(confusion))
    truth, predicted = np.nonzero(wrong)
    count = wrong[truth, predicted]
    share = count / confusion.sum(axis=1)[truth]
    order = np.lexsort((predicted, truth, -share, -count))[:most]
    return [Pair(int(truth[i]), int(predicted[i]), int(count[i]), float(share[i])) for i in order]


def _centred(score: Resampled) -> Resampled:
    if not np.isfinite(score.draws).any():
        return score
    return Resampled(score.value, np.clip(score.draws - np.nanmean(score.draws) + score.value, 0.0, 1.0))
