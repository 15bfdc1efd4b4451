"""Scores with their draws and a word on them: what clustering and batch mixing return.

A score is a function of how often each group is drawn. All scores of a representation are taken from the same pass over
the resamples, which are costlier to draw than to use.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from xfm.metrics.resampling import F64, GroupDraws, Ints, Resampled, bootstrap, group_sums, ratios, weighted_sums

# Shapes: N cells, G groups, B resamples, b resamples of one block, L classes.
CONSTANT = "constant representation"  # the note of what it leaves undefined

Statistic = Callable[[NDArray[Any]], F64]  # (b, G) weights of groups -> (b,) scores, NaN where undefined


class NotedScore(NamedTuple):
    """A score, its draws, and what to know about them."""

    value: float | None  # None where it is not defined; the note says why
    draws: F64  # (B,) NaN where a resample does not define the score
    note: str = ""


class Measure(NamedTuple):
    """How to take a score from weights of groups; None where it is not defined, for the reason in the note."""

    statistic: Statistic | None
    note: str = ""
    is_smooth: bool = True  # as of `bootstrap`


def take(measures: Mapping[str, Measure], draws: GroupDraws) -> dict[str, NotedScore]:
    """All scores with their draws, in the order of the measures."""
    found: dict[str, Resampled] = {}
    for is_smooth in (True, False):
        statistics = {name: one.statistic for name, one in measures.items() if one.is_smooth == is_smooth}
        found |= bootstrap(draws, partial(_each, statistics), is_smooth=is_smooth) if any(statistics.values()) else {}
    nothing = np.full(draws.resamples, np.nan)
    out = {}
    for name, measure in measures.items():
        value, drawn = found.get(name, (np.nan, nothing))
        out[name] = NotedScore(float(value) if np.isfinite(value) else None, drawn, measure.note)
    return out


def _each(statistics: Mapping[str, Statistic | None], weights: NDArray[Any]) -> dict[str, F64]:
    return {name: statistic(weights) for name, statistic in statistics.items() if statistic is not None}


def centred(score: NotedScore) -> NotedScore:
    """The score with its draws moved so that their mean is its value.

    A cell that is drawn twice agrees with itself, so that resampled clusters agree better with labels than all cells
    do, by more than the width of the interval where there is little to agree on. How far draws scatter is what is
    wanted. The same holds for the little variance that batches explain by chance.
    """
    if score.value is None or not np.isfinite(score.draws).any():
        return score
    return score._replace(draws=score.draws - np.nanmean(score.draws) + score.value)


def mean_of_class_means(groups: Ints, n_groups: int, classes: Ints, values: F64) -> Statistic:
    """The mean over classes of the mean over their cells; a class that is not drawn does not count.

    Args:
        groups: (n,) group of each cell that takes part.
        classes: (n,) classes, 0 to L - 1; all 0 for a plain mean over cells.
        values: (n,) a number of each cell.
    """
    n_classes, cells = int(classes.max(initial=-1)) + 1, np.arange(len(classes))
    entries = np.concatenate([values, np.ones(len(values))])
    places = np.tile(cells, 2), np.concatenate([classes, classes.astype(np.int64) + n_classes])
    columns = sparse.coo_array((entries, places), shape=(len(classes), 2 * n_classes))
    sums = group_sums(groups, n_groups, columns.tocsr())

    def statistic(weights: NDArray[Any]) -> F64:
        totals, counts = np.split(weighted_sums(weights, sums), 2, axis=1)
        means = ratios(totals, counts)
        is_drawn = counts > 0
        return ratios(means.sum(axis=1, where=is_drawn), is_drawn.sum(axis=1))

    return statistic


def median(groups: Ints, values: F64) -> Statistic:
    """The median of (N,) values, each counted as often as its group is drawn; the mean of both middle cells."""
    order = np.argsort(values, kind="stable")
    ordered, groups = values[order].astype(np.float64), groups[order]

    def statistic(weights: NDArray[Any]) -> F64:
        drawn = np.cumsum(weights[:, groups], axis=1, dtype=np.int64)
        out = np.full(len(weights), np.nan)
        for number, row in enumerate(drawn):
            if row[-1] > 0:
                middle = np.searchsorted(row, [(row[-1] + 1) // 2, row[-1] // 2 + 1])
                out[number] = ordered[middle].mean()
        return out

    return statistic
