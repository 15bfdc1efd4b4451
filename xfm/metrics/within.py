"""Accuracy among the classes of a cell's own data set: what is told beyond the data set that a cell comes from.

Donors are nested in data sets, and data sets differ by laboratory and protocol. A classifier that knows the data set
alone is right far more often than chance; among the donors of that data set it is not.
"""

# Shapes: N cells, K classes, S data sets.

import numpy as np
from numpy.typing import NDArray

from xfm.metrics.resampling import Ints

MISSING = -1


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
    """The best class among those that training saw in the cell's own data set.

    Args:
        scores: (N, K), higher is likelier: logits or probabilities.
        sets: (N,) data set of each cell; each `has_choice`.
        seen: of `seen_classes`.

    Returns:
        (N,) classes.
    """
    found: NDArray[np.int64] = np.where(seen[sets] > 0, scores, -np.inf).argmax(axis=1)
    return found


def set_majorities(sets: Ints, seen: NDArray[np.int64], otherwise: int) -> NDArray[np.int64]:
    """(N,) the most frequent training class of each cell's data set: what knowing the data set alone can say.

    Args:
        sets: (N,) data set of each cell.
        seen: of `seen_classes`.
        otherwise: class of cells that have no choice, see `has_choice`.
    """
    found, known = np.full(len(sets), otherwise, np.int64), has_choice(sets, seen)
    found[known] = seen.argmax(axis=1)[sets[known]]
    return found


def within_chance(sets: Ints, seen: NDArray[np.int64]) -> float:
    """Expected accuracy of drawing evenly among the classes of each cell's data set; NaN without a cell."""
    return float((1 / (seen > 0).sum(axis=1)[sets]).mean()) if len(sets) else float("nan")
