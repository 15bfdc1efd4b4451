"""Scores of ranked guesses: the first one right, one of the first five right, every class alike, and how sure.

Names as in CLIP_benchmark: acc1 is `accuracy`, mean per-class recall is `balanced_accuracy` (one number, see
classification.py), acc5 is taken where there are more than five classes: with five it is 1 by definition.
All scores of a representation come from one pass over the resamples.

Recall at 1 of retrieval, and what guessing would reach: Radford et al., ICML 2021, section 3.1, as measured on
Flickr30k and COCO; several things may be right, as there every caption of an image is.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xfm.metrics.calibration import gap_sums, weighted_error
from xfm.metrics.classification import group_counts, scores_of_counts
from xfm.metrics.resampling import F64, GroupDraws, Ints, Resampled, bootstrap, group_sums, ratios, weighted_sums
from xfm.metrics.score_with_note import NotedScore, centred

# Shapes: N rows, K classes, T guesses a row, best first; Q queries, G things to find, P width.
TOP = 5


class Pair(NamedTuple):
    """A class and what it is taken for."""

    truth: int
    predicted: int
    rows: int
    share: float  # of the rows of the true class


def is_hit(truth: Ints, ranked: NDArray[Any], k: int) -> NDArray[np.bool_]:
    """(N,) whether the true class is among the first k of (N, T) guessed classes, best first.

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
    truth: Ints, ranked: NDArray[Any], n_classes: int, draws: GroupDraws, confidence: NDArray[Any] | None = None
) -> dict[str, Resampled]:
    """All scores with their draws over groups.

    Args:
        truth: (N,) classes, 0 to K - 1.
        ranked: (N, T) guessed classes, best first; without five of them there is no acc5.
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
    is_right = predicted == truth
    gaps = None if confidence is None else gap_sums(confidence, is_right, draws.codes, draws.n_groups)

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
        value, drawn = scores["ece"]
        scores["ece"] = Resampled(value, np.clip(centred(NotedScore(value, drawn)).draws, 0.0, 1.0))
    return scores


def confused_pairs(confusion: NDArray[np.integer[Any]], most: int) -> list[Pair]:
    """The most frequent mistakes, most rows first; of equals the larger share of its class, then the earlier class."""
    wrong = confusion - np.diag(np.diagonal(confusion))
    truth, predicted = np.nonzero(wrong)
    count = wrong[truth, predicted]
    share = count / confusion.sum(axis=1)[truth]
    order = np.lexsort((predicted, truth, -share, -count))[:most]
    return [Pair(int(truth[i]), int(predicted[i]), int(count[i]), float(share[i])) for i in order]


def nearest_is_right(
    queries: NDArray[np.floating], gallery: NDArray[np.floating], query_ids: Ints, gallery_ids: Ints
) -> NDArray[np.bool_]:
    """Whether the nearest thing carries the query's id; recall at 1 is the mean.

    Args:
        queries: (Q, P) unit vectors.
        gallery: (G, P) unit vectors; of equally near ones the first counts.
        query_ids: (Q,).
        gallery_ids: (G,).

    Returns:
        (Q,).

    Raises:
        ValueError: there is nothing to find, or the shapes do not match.
    """
    if len(queries) != len(query_ids) or len(gallery) != len(gallery_ids) or not len(gallery):
        raise ValueError(
            f"{len(queries)} queries with {len(query_ids)} ids, {len(gallery)} things with {len(gallery_ids)} ids"
        )
    found: NDArray[np.bool_] = gallery_ids[np.argmax(queries @ gallery.T, axis=1)] == query_ids
    return found


def chance_of_right(query_ids: Ints, gallery_ids: Ints) -> float:
    """Recall at 1 of drawing from the (G,) things blindly, each alike, for (Q,) queries."""
    names, counts = np.unique(gallery_ids, return_counts=True)
    share = dict(zip(names.tolist(), (counts / len(gallery_ids)).tolist(), strict=True))
    return float(np.mean([share.get(name, 0.0) for name in query_ids.tolist()]))
