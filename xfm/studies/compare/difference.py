"""One row of a leaderboard minus another one, with the luck of rows and of seeds."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xfm.judging import comparison
from xfm.judging.comparison import Comparison, compared
from xfm.judging.representations import UNSEEING
from xfm.metrics.paired import bootstrap_difference
from xfm.metrics.seeds import with_spread
from xfm.studies.compare.row import BoardRow, Column


def corrected(tests: Sequence[Comparison | None]) -> list[Comparison | None]:
    """The tests with their p-values corrected for their number (Holm)."""
    found = iter(comparison.corrected([test for test in tests if test is not None]))
    return [next(found) if test is not None else None for test in tests]


def difference(row: BoardRow, first: BoardRow, column: Column, label: str) -> Comparison | None:
    """A row minus another one, over all runs that share a split and its resamples; None where no two do.

    Where seeds draw splits of their own, differences are taken within a split and their spread over splits is the luck
    of seeds; on one split the seeds of each row have a spread of their own.
    """
    by_split: dict[str, tuple[list[Scored], list[Scored]]] = {}
    for side, other in enumerate((row, first)):
        for run, pick in other.parts:
            score = run.find(pick.name, label, column.metric, column.split)
            if score is not None and score.value is not None and score.draws is not None:
                scored = Scored(score.value, score.draws, score.cells, score.groups)
                by_split.setdefault(run.split, ([], []))[side].append(scored)
    pairs = [pair for pair in by_split.values() if all(pair) and _are_paired([*pair[0], *pair[1]])]
    if not pairs or len({len(own[0].draws) for own, _ in pairs}) > 1:
        return None
    sides = [[one.value for pair in pairs for one in pair[side]] for side in (0, 1)]
    if len(pairs) > 1:  # each split has seeds of its own: what varies is the difference
        sides = [[_mean(own) - _mean(other) for own, other in pairs]]
    own, others = (np.mean([one.draws for pair in pairs for one in pair[side]], axis=0) for side in (0, 1))
    value, rival = (float(np.mean([_mean(pair[side]) for pair in pairs])) for side in (0, 1))
    groups = min(pair[0][0].groups or 0 for pair in pairs)
    found = bootstrap_difference(with_spread(own, sides), others, value, rival, groups)
    test = compared(row.representation, first.representation, found, found.p, groups)
    # That a training knows more than what looks at nothing is a question about its weights, and not about its recipe.
    is_blind = {row.representation, first.representation} & set(UNSEEING)
    is_trained = not is_blind and any(run.is_trained for run in (*row.runs, *first.runs))
    return replace(
        test, seeds=min(map(len, sides)) if is_trained else None,
        lower_is_better=column.about is not None and column.about.better == "lower",
    )  # fmt: skip


class Scored(NamedTuple):
    """A score that can be subtracted from another one."""

    value: float
    draws: NDArray[np.float64]
    cells: int | None
    groups: int | None


def _are_paired(scores: Sequence[Scored]) -> bool:
    """Whether all are of the same rows and resamples."""
    return len({(len(one.draws), one.cells, one.groups) for one in scores}) == 1


def _mean(scores: Sequence[Scored]) -> float:
    return float(np.mean([one.value for one in scores]))
