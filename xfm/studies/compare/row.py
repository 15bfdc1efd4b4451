"""A row of a leaderboard: one representation of one model, its seeds put together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from xfm.core.metric import TASK_WORDS, find_metric, find_reported
from xfm.core.metric import Metric as MetricRecord
from xfm.judging.representations import UNSEEING
from xfm.metrics.resampling import percentile_interval
from xfm.studies.compare.choose_representation import Pick, picks
from xfm.studies.compare.finished_run import REPORTED, UNREAD, Metric, Run, StoredScore


class Column(NamedTuple):
    """One metric on one kind of cells."""

    metric: Metric
    split: str

    def __str__(self) -> str:
        if self.split == REPORTED:
            return self.metric.name
        return f"{self.metric}, {self.split}"

    @property
    def about(self) -> MetricRecord | None:
        """What is known of the metric; None for one of a later version, or of a report's own."""
        if self.split == REPORTED:
            return find_reported(self.metric.name)
        return find_metric(self.metric.name, self.metric.task)

    @property
    def is_ranking(self) -> bool:
        """Whether it is known which way is better."""
        return self.about is not None and self.about.better is not None

    def cost(self, value: float) -> float:
        """The lower the better, where `is_ranking`."""
        assert self.about is not None
        return self.about.cost(value)


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric of one row."""

    value: float  # mean over seeds
    # low, high: 95 % interval: a run's own, or that of the draws of all seeds together, and without draws the widest
    # ends; None without
    low: float | None
    high: float | None
    sd: float | None  # standard deviation over seeds (n - 1); None for a single one
    values: tuple[float, ...]  # of each seed
    cells: int | None  # cells, groups: the fewest over seeds; None where no run says
    groups: int | None


class Against(NamedTuple):
    """A row minus the first row, on shared resamples."""

    value: float
    low: float
    high: float
    p: float  # two-sided, corrected for the rows of the board
    pairs: int  # of runs it rests on
    finest: float  # the least p that so many resamples can give, not corrected


@dataclass(frozen=True, slots=True, eq=False)
class BoardRow:
    """One representation of one model."""

    runs: tuple[Run, ...]  # one a seed, in their order
    picks: tuple[Pick, ...]  # what was picked from each
    measures: Mapping[Column, Measure]  # by column; a column that no run defines is missing
    rank_by: float | None = None  # the primary metric on validation cells, or None
    against: Against | None = None  # the first row; None for itself and where nothing is paired
    # names of other runs that found the very same, as runs of the same cells do for a baseline
    shared_with: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """layer, combination, baseline or report."""
        return self.picks[0].kind

    @property
    def representation(self) -> str:
        """Its names, and what they were picked as."""
        names, role = ", ".join(dict.fromkeys(pick.name for pick in self.picks)), self.picks[0].role
        return f"{names} ({role})" if role and not names.startswith(role) else names

    @property
    def classifier(self) -> str:
        """In words, on a board of classifiers; else empty. What looks at nothing is no classifier's."""
        task = self.runs[0].classifier
        if task and self.picks[0].name in UNREAD:  # what fine-tuning began with is not fine-tuned
            task = self.picks[0].name
        return "" if self.representation in UNSEEING else TASK_WORDS.get(task, task)

    @property
    def layers(self) -> tuple[int, ...]:
        """Of the representations."""
        return tuple(sorted({pick.layer for pick in self.picks if pick.layer is not None}))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the runs."""
        return tuple(run.seed for run in self.runs)

    @property
    def seconds(self) -> float | None:
        """Of the representation, else of the job; mean over seeds."""
        found = [run.seconds.get(pick.name, run.seconds.get("")) for run, pick in self.parts]
        known = [seconds for seconds in found if seconds is not None]
        return float(np.mean(known)) if known else None

    @property
    def parts(self) -> list[tuple[Run, Pick]]:
        """Runs with what was picked from them."""
        return list(zip(self.runs, self.picks, strict=True))


def rows_of(
    family: Sequence[Run], label: str, columns: Sequence[Column], representations: Sequence[str]
) -> list[BoardRow]:
    """One row for each role, all seeds in it; roles that mean the same representations become one.

    Args:
        family: runs that differ in the seed alone, in its order.
        label: of the board.
        columns: of the board; the first one ranks.
        representations: as for `picks`.
    """
    roles: dict[str, list[tuple[Run, Pick]]] = {}
    for run in family:
        for pick in picks(run, label, representations):
            roles.setdefault(pick.role or pick.name, []).append((run, pick))
    rows: dict[tuple[tuple[str, str], ...], BoardRow] = {}
    for parts in roles.values():
        key = tuple((run.fingerprint, pick.name) for run, pick in parts)
        if key in rows:
            before = rows[key].picks
            merged = tuple(
                replace(old, role=", ".join(filter(None, (old.role, new.role))))
                for old, (_, new) in zip(before, parts, strict=True)
            )
            rows[key] = replace(rows[key], picks=merged)
            continue
        measures = {column: measure for column in columns if (measure := measure_of(parts, label, column)) is not None}
        by = _validation(parts, label, columns[0].metric) if columns else None
        rows[key] = BoardRow(tuple(run for run, _ in parts), tuple(pick for _, pick in parts), measures, by)
    return list(rows.values())


def _scores(parts: Sequence[tuple[Run, Pick]], label: str, metric: Metric, split: str) -> list[StoredScore]:
    found = [run.find(pick.name, label, metric, split) for run, pick in parts]
    return [score for score in found if score is not None and score.value is not None]


def measure_of(parts: Sequence[tuple[Run, Pick]], label: str, column: Column) -> Measure | None:
    """One metric of what was picked from some runs, put together; None where none of them defines it."""
    scores = _scores(parts, label, column.metric, column.split)
    if not scores:
        return None
    values = tuple(score.value for score in scores if score.value is not None)
    cells = [score.cells for score in scores if score.cells is not None]
    groups = [score.groups for score in scores if score.groups is not None]
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    low, high = _interval(scores)
    return Measure(float(np.mean(values)), low, high, sd, values, min(cells, default=None), min(groups, default=None))


def _interval(scores: Sequence[StoredScore]) -> tuple[float | None, float | None]:
    ends = [(score.low, score.high) for score in scores if score.low is not None and score.high is not None]
    if len(ends) < len(scores):
        return None, None
    draws = [score.draws for score in scores if score.draws is not None]
    if len(scores) == 1 or len(draws) < len(scores):
        return min(low for low, _ in ends), max(high for _, high in ends)
    low, high = percentile_interval(np.concatenate(draws)[:, None])[:, 0]
    return float(low), float(high)


def _validation(parts: Sequence[tuple[Run, Pick]], label: str, metric: Metric) -> float | None:
    values = [score.value for score in _scores(parts, label, metric, "validation") if score.value is not None]
    return float(np.mean(values)) if len(values) == len(parts) else None
