"""Scores of predicted classes: of one set of cells, and of every resample of their groups at once.

All scores follow from three counts a class: cells that hold it, cells predicted to hold it, and cells where both are
true. Macro scores average over the classes that the truth holds, each class alike; a class that is never predicted has
precision 0. In a resample, the truth is the drawn one: a rare class may be missing from it.

Macro recall and balanced accuracy are one number under these rules (scikit-learn documents the second as the first),
so it is kept once, as `balanced_accuracy`; SYNONYMS knows it as `recall`, the string of cz-benchmarks. That package
averages two classes as "binary"; here two classes are averaged like any other number.

Accuracy *within* is that among the classes of a cell's own data set: what is told beyond the data set that a cell comes
from. Donors are nested in data sets, and data sets differ by laboratory and protocol. A classifier that knows the data
set alone is right far more often than chance; among the donors of that data set it is not.

`weighted_f1` averages the F1 of classes by their cells in the truth: it hardly sees a rare class.

Reference implementation: sklearn.metrics accuracy_score, balanced_accuracy_score and
precision_recall_fscore_support(average="macro" or "weighted", labels=np.unique(truth), zero_division=0).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from xfm.metrics.resampling import F64, GroupDraws, Ints, Resampled, bootstrap, of_fewer, ratios, weighted_sums

# Shapes: N cells, G groups, K classes, S data sets. "..." are resamples, or nothing.
MISSING = -1  # the code of a cell whose class or data set is not known
SCORES = ("accuracy", "balanced_accuracy", "f1", "precision", "weighted_f1")
SYNONYMS = {"recall": "balanced_accuracy"}


def score_name(metric: str) -> str:
    """The name in SCORES of a metric that may be called by a synonym.

    Raises:
        ValueError: if it is no score of this module.
    """
    name = SYNONYMS.get(metric, metric)
    if name not in SCORES:
        raise ValueError(f"unknown score {metric!r}; known: {', '.join([*SCORES, *SYNONYMS])}")
    return name


def confusion_of(truth: Ints, predicted: Ints, n_classes: int, codes: Ints, n_groups: int) -> sparse.csr_array:
    """Confusion matrices of groups: (G, K * K), column t * K + p counts cells of class t predicted as p."""
    check_classes(truth, predicted, n_classes)
    pairs = truth.astype(np.int64) * n_classes + predicted
    return count_columns([(codes, pairs)], n_groups, n_classes**2)


def confusion_matrix(truth: Ints, predicted: Ints, n_classes: int) -> NDArray[np.int64]:
    """(K, K) rows by true and predicted class."""
    check_classes(truth, predicted, n_classes)
    pairs = truth.astype(np.int64) * n_classes + predicted
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def scores(confusion: NDArray[Any]) -> dict[str, F64]:
    """Scores of (..., K, K) confusion matrices, truth in rows: {name of SCORES: (...)}; NaN without a cell."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return scores_of_counts(hits, confusion.sum(axis=-1), confusion.sum(axis=-2))


def scores_of_counts(hits: NDArray[Any], support: NDArray[Any], predicted: NDArray[Any]) -> dict[str, F64]:
    """Scores from (..., K) cells of each class that are predicted to be, cells of it, and cells predicted to be of it:
    {name of SCORES: (...)}; NaN where there is no cell."""
    # Without a cell of a class there is no hit either: it adds 0 to a sum over classes, and is not counted below.
    held = (support > 0).sum(axis=-1)
    macro = {
        "balanced_accuracy": _or_zero(hits, support),
        "f1": _or_zero(2 * hits, support + predicted),
        "precision": _or_zero(hits, predicted),
    }
    cells = support.sum(axis=-1)
    found = {"accuracy": ratios(hits.sum(axis=-1), cells)}
    found |= {name: ratios(each.sum(axis=-1), held) for name, each in macro.items()}
    return found | {"weighted_f1": ratios((macro["f1"] * support).sum(axis=-1), cells)}


def per_class(confusion: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Scores of each class from (K, K) counts, truth in rows.

    Returns:
        precision, recall, f1: (K,) float64, NaN for a class that the truth lacks (it enters no macro score either);
        support: (K,) cells of the class. Means of the first three over classes with support are the macro scores.
    """
    hits, support, predicted = np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    columns = {
        "precision": _or_zero(hits, predicted),
        "recall": _or_zero(hits, support),
        "f1": _or_zero(2 * hits, support + predicted),
    }
    return {name: np.where(support > 0, column, np.nan) for name, column in columns.items()} | {"support": support}


def majority(train_truth: Ints) -> int:
    """The most frequent class of the training cells, the first one among equals: what to predict without looking."""
    if len(train_truth) == 0:
        raise ValueError("no training cell, hence no majority class")
    return int(np.bincount(train_truth).argmax())


def bootstrap_scores(truth: Ints, predicted: Ints, n_classes: int, draws: GroupDraws) -> dict[str, Resampled]:
    """Scores of (N,) predictions against (N,) truth, with their draws over groups: {name of SCORES: value, (B,)}."""
    counts = group_counts(truth, predicted, n_classes, draws.codes, draws.n_groups)

    def statistic(weights: NDArray[Any]) -> dict[str, F64]:
        return scores_of_counts(*np.split(weighted_sums(weights, counts), 3, axis=1))

    return bootstrap(draws, statistic)


def bootstrap_class_f1(truth: Ints, predicted: Ints, n_classes: int, draws: GroupDraws) -> list[Resampled]:
    """F1 of each of K classes with its draws over groups; NaN where the truth, or a resample of it, lacks the class."""
    counts = group_counts(truth, predicted, n_classes, draws.codes, draws.n_groups)

    def f1(weights: NDArray[Any]) -> F64:
        hits, support, guessed = np.split(weighted_sums(weights, counts), 3, axis=1)
        return np.where(support > 0, _or_zero(2 * hits, support + guessed), np.nan)

    return _bootstrap_columns(draws, f1, counts)


def bootstrap_class_recall(truth: Ints, predicted: Ints, n_classes: int, draws: GroupDraws) -> list[Resampled]:
    """Recall of each of K classes with its draws over groups; NaN where the truth, or a resample of it, lacks it."""
    counts = group_counts(truth, predicted, n_classes, draws.codes, draws.n_groups)[:, : 2 * n_classes]
    return _bootstrap_columns(
        draws, lambda weights: ratios(*np.split(weighted_sums(weights, counts), 2, axis=1)), counts
    )


def _bootstrap_columns(
    draws: GroupDraws, of_weights: Callable[[NDArray[Any]], F64], counts: sparse.csr_array
) -> list[Resampled]:
    """Each column of (b, K) scores with its draws, of the groups that hold the class; `counts` as of `group_counts`."""
    found = bootstrap(draws, lambda weights: {str(code): each for code, each in enumerate(of_weights(weights).T)})
    support = counts[:, len(found) : 2 * len(found)].toarray()
    return [of_fewer(one, sizes, draws) for one, sizes in zip(found.values(), support.T, strict=True)]


def group_counts(truth: Ints, predicted: Ints, n_classes: int, codes: Ints, n_groups: int) -> sparse.csr_array:
    """The counts that scores need, of each group: (G, 3 K), hits, then support, then predicted."""
    check_classes(truth, predicted, n_classes)
    truth, predicted = truth.astype(np.int64), predicted.astype(np.int64)  # int8 codes have no room for 3 K columns
    is_hit = truth == predicted
    entries = [(codes[is_hit], truth[is_hit]), (codes, truth + n_classes), (codes, predicted + 2 * n_classes)]
    return count_columns(entries, n_groups, 3 * n_classes)


def count_columns(entries: list[tuple[Ints, Ints]], rows: int, columns: int) -> sparse.csr_array:
    """How often each (row, column) occurs in the listed pairs of index vectors: (rows, columns) int64."""
    row, column = (np.concatenate(side) for side in zip(*entries, strict=True))
    return sparse.coo_array((np.ones(len(row), dtype=np.int64), (row, column)), shape=(rows, columns)).tocsr()


def check_classes(truth: Ints, predicted: Ints, n_classes: int) -> None:
    """Raises ValueError unless both are as long as each other and lie in 0 to K - 1."""
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise ValueError(f"truth {truth.shape} and predictions {predicted.shape} do not match cell by cell")
    for name, classes in (("truth", truth), ("predictions", predicted)):
        if len(classes) and not 0 <= classes.min() <= classes.max() < n_classes:
            raise ValueError(f"{name} hold {classes.min()} to {classes.max()}; {n_classes} classes count from 0")


def seen_classes(sets: Ints, codes: Ints, n_sets: int, n_classes: int) -> NDArray[np.int64]:
    """(S, K) training cells of each class in each data set; cells with MISSING in either count for nothing."""
    held = (sets != MISSING) & (codes != MISSING)
    counts = np.zeros((n_sets, n_classes), np.int64)
    np.add.at(counts, (sets[held], codes[held]), 1)
    return counts


def has_choice(sets: Ints, seen: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) whether a cell's data set is known and has training cells: only then the metric is defined for it."""
    found: NDArray[np.bool_] = np.asarray(sets != MISSING)
    found[found] = seen.sum(axis=1)[sets[found]] > 0
    return found


def within_predictions(scores: NDArray[np.floating], sets: Ints, seen: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) the best class among those that training saw in the cell's own data set.

    Args:
        scores: (N, K), higher is likelier: logits or probabilities.
        sets: (N,) data set of each cell; each `has_choice`.
        seen: of `seen_classes`.
    """
    found: NDArray[np.int64] = np.where(seen[sets] > 0, scores, -np.inf).argmax(axis=1)
    return found


def set_majorities(sets: Ints, seen: NDArray[np.int64], otherwise: int) -> NDArray[np.int64]:
    """(N,) the most frequent training class of each cell's data set: what knowing the data set alone can say; for cells
    that have no choice, see `has_choice`, the class `otherwise`."""
    found, known = np.full(len(sets), otherwise, np.int64), has_choice(sets, seen)
    found[known] = seen.argmax(axis=1)[sets[known]]
    return found


def within_chance(sets: Ints, seen: NDArray[np.int64]) -> float:
    """Expected accuracy of drawing evenly among the classes of each cell's data set; NaN without a cell."""
    return float((1 / (seen > 0).sum(axis=1)[sets]).mean()) if len(sets) else float("nan")


def _or_zero(top: NDArray[Any], bottom: NDArray[Any]) -> F64:
    """top / bottom, and 0 where bottom is 0: scikit-learn's zero_division=0."""
    out: F64 = np.divide(top, bottom, out=np.zeros(np.shape(top)), where=bottom != 0)
    return out
