"""A row of a leaderboard: one representation of one model, its seeds put together.

A representation is never picked by looking at test cells.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from xfm.core.metric import TASK_WORDS, find_metric, find_reported
from xfm.core.metric import Metric as MetricRecord
from xfm.core.schema import layer_column
from xfm.judging.comparison import Comparison
from xfm.judging.representations import UNSEEING
from xfm.metrics.resampling import estimate
from xfm.metrics.seeds import mean_over_seeds
from xfm.studies.compare.finished_run import REPORTED, UNREAD, Metric, Run, StoredScore


class Column(NamedTuple):
    """One metric on one kind of cells."""

    metric: Metric
    split: str

    def __str__(self) -> str:
        return self.metric.name if self.split == REPORTED else f"{self.metric}, {self.split}"

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
    # low, high: 95 % interval: a run's own, or that of the mean over seeds, which holds the luck of seeds too; None
    # without
    low: float | None
    high: float | None
    sd: float | None  # standard deviation over seeds (n - 1); None for a single one
    values: tuple[float, ...]  # of each seed
    cells: int | None  # cells, groups: the fewest over seeds; None where no run says
    groups: int | None

    def __str__(self) -> str:
        return f"{self.value:.3f}" + (f" ± {self.sd:.3f}" if self.sd is not None else "")


@dataclass(frozen=True, slots=True)
class Pick:
    """A representation of one run."""

    name: str
    kind: str
    layer: int | None
    role: str = ""  # what it was picked as: best, last, random; empty where its name says all


@dataclass(frozen=True, slots=True, eq=False)
class BoardRow:
    """One representation of one model."""

    runs: tuple[Run, ...]  # one a seed, in their order
    picks: tuple[Pick, ...]  # what was picked from each
    measures: Mapping[Column, Measure]  # by column; a column that no run defines is missing
    rank_by: float | None = None  # the primary metric on validation cells, or None
    against: Comparison | None = None  # the first row; None for itself and where nothing is paired
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
        return tuple(sorted({pick.layer for pick in self.picks if pick.layer is not None}))

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.seed for run in self.runs)

    @property
    def seconds(self) -> float | None:
        """Of the representation, else of the job; mean over seeds."""
        found = [run.seconds.get(pick.name, run.seconds.get("")) for run, pick in self.parts]
        known = [seconds for seconds in found if seconds is not None]
        return float(np.mean(known)) if known else None

    @property
    def parts(self) -> list[tuple[Run, Pick]]:
        return list(zip(self.runs, self.picks, strict=True))


def rows_of(
    family: Sequence[Run], label: str, columns: Sequence[Column], representations: Sequence[str]
) -> list[BoardRow]:
    """One row for each role of runs that differ in the seed alone, all seeds in it; roles that mean the same
    representations become one. The first column ranks."""
    roles: dict[str, list[tuple[Run, Pick]]] = {}
    for run in family:
        for pick in picks(run, label, representations):
            roles.setdefault(pick.role or pick.name, []).append((run, pick))
    rows: dict[tuple[tuple[str, str], ...], BoardRow] = {}
    for parts in roles.values():
        key = tuple((run.fingerprint, pick.name) for run, pick in parts)
        if key in rows:
            pairs = zip(rows[key].picks, parts, strict=True)
            merged = (replace(old, role=", ".join(filter(None, (old.role, new.role)))) for old, (_, new) in pairs)
            rows[key] = replace(rows[key], picks=tuple(merged))
            continue
        measures = {column: measure for column in columns if (measure := measure_of(parts, label, column)) is not None}
        held = measure_of(parts, label, Column(columns[0].metric, "validation")) if columns else None
        runs, chosen = zip(*parts, strict=True)
        rows[key] = BoardRow(runs, chosen, measures, held.value if held and len(held.values) == len(parts) else None)
    return list(rows.values())


def measure_of(parts: Sequence[tuple[Run, Pick]], label: str, column: Column) -> Measure | None:
    """One metric of what was picked from some runs, put together; None where none of them defines it."""
    found = [run.find(pick.name, label, column.metric, column.split) for run, pick in parts]
    scores = [score for score in found if score is not None and score.value is not None]
    values = tuple(score.value for score in scores if score.value is not None)
    if not values:
        return None
    cells = [score.cells for score in scores if score.cells is not None]
    groups = [score.groups for score in scores if score.groups is not None]
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    low, high = _interval(scores)
    return Measure(float(np.mean(values)), low, high, sd, values, min(cells, default=None), min(groups, default=None))


def _interval(scores: Sequence[StoredScore]) -> tuple[float | None, float | None]:
    if len(scores) == 1:
        return scores[0].low, scores[0].high
    draws = [score.draws for score in scores if score.draws is not None and score.low is not None]
    if len(draws) < len(scores) or len({len(each) for each in draws}) > 1:
        return None, None
    found = estimate(*mean_over_seeds([score.value or 0.0 for score in scores], draws))
    return (found.low, found.high) if found else (None, None)


def picks(run: Run, label: str, wanted: Sequence[str]) -> list[Pick]:
    """What is wanted of a run, in the order of its scores; a run that has only reported numbers has an empty label.

    Wanted are best (chosen on validation cells), last (deepest layer; of several poolings the better one on
    validation), baselines (of networks that learned nothing, whose layers are many, the best on validation), all, or
    names.
    """
    every = {score.representation: score for score in run.scores if score.label == label}
    found = [_pick(every[REPORTED])] if REPORTED in every else []
    if "best" in wanted or "all" in wanted:
        own = [(every[name], role) for name, role in _best(run, label) if name in every]
        # What was fine-tuned is the one thing that its run made, chosen among no layers.
        found += [_pick(score, role if score.kind != "layer" or score.layer is not None else "") for score, role in own]
    if "last" in wanted or "all" in wanted:
        found += [_pick(score, "last") for score in _last(run, label, every.values())]
    if "baselines" in wanted and "all" not in wanted:
        found += _baselines(run, label, every.values())
    found += [_pick(score) for name, score in every.items() if name in wanted or ("all" in wanted and name != REPORTED)]
    return found


def _pick(score: StoredScore, role: str = "") -> Pick:
    return Pick(score.representation, score.kind, score.layer, role)


def _best(run: Run, label: str) -> Iterator[tuple[str, str]]:
    """(representation, role): the run's own choice, else the best layer on validation cells.

    A label that no layer was chosen for (batches, time) shows what was chosen for the others.
    """
    if label in run.choice:
        yield run.choice[label], "best"
    elif layer := _best_on_validation(run, label, (s for s in run.scores if s.kind == "layer" and s.label == label)):
        yield layer.representation, "best"
    else:
        for other, name in run.choice.items():
            yield name, f"best for {other}"


def _last(run: Run, label: str, scores: Iterable[StoredScore]) -> list[StoredScore]:
    layers = [score for score in scores if score.kind == "layer" and score.layer is not None]
    deepest = [score for score in layers if score.layer == max(other.layer or 0 for other in layers)]
    return [best] if (best := _best_on_validation(run, label, deepest)) is not None else deepest


def _baselines(run: Run, label: str, scores: Iterable[StoredScore]) -> list[Pick]:
    found: list[Pick] = []
    layered: dict[str, list[StoredScore]] = {}
    for score in scores:
        if score.kind == "baseline" and score.pool is not None and score.layer is not None:
            name = score.representation.removesuffix(layer_column(score.pool, score.layer)).rstrip("_")
            layered.setdefault(name or "baseline", []).append(score)
        elif score.kind == "baseline":
            found.append(_pick(score))
    for name, layers in layered.items():
        best = _best_on_validation(run, label, layers)
        found.append(_pick(best or max(layers, key=lambda score: score.layer or 0), name))
    return found


def _best_on_validation(run: Run, label: str, scores: Iterable[StoredScore]) -> StoredScore | None:
    """The first of the best; None where none was scored there."""
    every = {score.representation: score for score in scores}
    found = {name: run.find(name, label, run.chooses, "validation") for name in every}
    known = {name: score.value for name, score in found.items() if score is not None and score.value is not None}
    return every[max(known, key=lambda name: known[name])] if known else None
