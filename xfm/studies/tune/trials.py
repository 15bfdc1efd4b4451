"""Trials of a search: what was tried, how far it came, and what it reached on validation rows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from xfm.core.errors import Refused
from xfm.training.settings import Record

Status = Literal["running", "finished", "pruned", "failed"]
DEFAULT = 0  # number of the trial that is the job as it was given


@dataclass(frozen=True, slots=True)
class Aim:
    """What a search wants: one score on validation rows, or two at once."""

    metric: str  # name of a record's entry, e.g. "validation_f1".
    is_lower_better: bool = False  # less of it is better
    near: float | None = None  # the nearer to this the better, e.g. .5 for an AUROC that shall be chance.
    # what is wanted beside it. The weights that are kept are still those of the best `metric`.
    also: "Aim | None" = None

    @classmethod
    def of(cls, watch: str, also: str | None = None) -> "Aim":
        """From words: NAME where higher is better, -NAME where lower is, NAME~VALUE where nearer to VALUE is.

        Raises:
            Refused: BAD_METRIC; no name, no number behind "~", or the same metric twice.
        """
        metric, tilde, number = watch.removeprefix("-").partition("~")
        try:
            near = float(number) if tilde else None
        except ValueError:
            near = math.nan
        if not metric or (near is not None and (watch.startswith("-") or not math.isfinite(near))):
            raise Refused(
                "BAD_METRIC",
                f"{watch!r} names no score: write NAME where higher is better, -NAME where lower is, or NAME~VALUE "
                "where nearer to VALUE is, as in validation_leakage_auroc~0.5",
            )
        second = None if also is None else cls.of(also)
        if second is not None and second.metric == metric:
            raise Refused("BAD_METRIC", f"{metric} is searched for twice; --also names another score")
        return cls(metric, watch.startswith("-"), near, second)

    @property
    def watch(self) -> str:
        """As it is written; without `near`, also as `Settings.watch`."""
        near = "" if self.near is None else f"~{self.near:g}"
        return f"{'-' if self.is_lower_better else ''}{self.metric}{near}"

    @property
    def direction(self) -> str:
        """For people: what is better."""
        if self.near is not None:
            return f"nearer {self.near:g} is better"
        return f"{'lower' if self.is_lower_better else 'higher'} is better"

    @property
    def each(self) -> "tuple[Aim, ...]":
        """This one, and the one beside it."""
        return (self,) if self.also is None else (self, self.also)

    def merit(self, value: float) -> float:
        """Higher is better."""
        if self.near is not None:
            return -abs(value - self.near)
        return -value if self.is_lower_better else value

    def kept(self, history: Sequence[Record]) -> Record | None:
        """The record whose weights training keeps: the first that has the best of the metric."""
        found = [record for record in history if self.metric in record]
        return max(found, key=lambda record: self.merit(record[self.metric])) if found else None

    def best(self, history: Sequence[Record]) -> float | None:
        """The best value of the metric in some records; None where none has it."""
        kept = self.kept(history)
        return None if kept is None else kept[self.metric]

    def values(self, history: Sequence[Record]) -> tuple[float, ...] | None:
        """One value for each of `each`, all of the same weights: those that are kept."""
        kept = self.kept(history)
        if kept is None or any(aim.metric not in kept for aim in self.each):
            return None
        return tuple(kept[aim.metric] for aim in self.each)

    def merits(self, history: Sequence[Record]) -> tuple[float, ...] | None:
        """As `values`, higher is better in each."""
        values = self.values(history)
        return None if values is None else tuple(aim.merit(v) for aim, v in zip(self.each, values, strict=True))


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial."""

    # from 0; it names the trial in OUTPUT and in MLflow, and what it is called does not depend on when or how often it
    # was started
    number: int
    values: dict[str, Any]  # what was drawn, by dotted field; of trial 0 nothing was
    status: Status = "running"  # running, until it ended of itself, was pruned, or failed
    # its validation records, as in `xfm.training.settings.Progress`
    history: list[Record] = field(default_factory=list)
    reason: str = ""  # why it failed
    is_final: bool = True  # a failure that would be the same another time
    on_front: bool = False  # what the trial's run was told at the end of a search for two scores

    @property
    def name(self) -> str:
        return f"trial-{self.number:03d}"

    def value_of(self, field: str, defaults: Mapping[str, Any]) -> Any:
        """Of a searched field: what was drawn, else that of trial 0."""
        return self.values.get(field, defaults.get(field))

    @property
    def epochs(self) -> float:
        """Passes over the training rows until its last validation."""
        return self.history[-1]["epoch"] if self.history else 0.0

    @property
    def seconds(self) -> float:
        """Spent training, until its last validation."""
        return self.history[-1]["seconds"] if self.history else 0.0

    @property
    def is_over(self) -> bool:
        """Whether it has nothing left to do."""
        return self.status in ("finished", "pruned")


def best_of(trials: Sequence[Trial], aim: Aim) -> Trial | None:
    """The trial with the best value among those that ran to their end; the first of equals.

    A pruned trial was behind when it was pruned, and its weights are not what its settings lead to.
    """
    ended = [trial for trial in trials if trial.status == "finished" and trial.history]
    scored = [(trial, aim.best(trial.history)) for trial in ended]
    found = [(aim.merit(value), -trial.number, trial) for trial, value in scored if value is not None]
    return max(found, key=lambda item: item[:2])[2] if found else None


def front_of(trials: Sequence[Trial], aim: Aim) -> list[Trial]:
    """The Pareto front of the trials that ran to their end, the best of the first score first: each that no other is as
    good as in every score and better than in one. Two that are alike in every score are both on it."""
    scored = [(aim.merits(trial.history), trial) for trial in trials if trial.status == "finished"]
    known = [(merits, trial) for merits, trial in scored if merits is not None]
    free = [(merits, trial) for merits, trial in known if not any(_dominates(other, merits) for other, _ in known)]
    return [trial for _, trial in sorted(free, key=lambda item: (*(-merit for merit in item[0]), item[1].number))]


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def trials_table(trials: Sequence[Trial], fields: Sequence[str], defaults: Mapping[str, Any], aim: Aim) -> pa.Table:
    """trials.parquet: one row a trial, one column a searched field; of two scores both, of the same weights, and
    `on_front`. `defaults` are the fields' values in trial 0."""
    columns: dict[str, Any] = {
        "trial": pa.array([trial.number for trial in trials], pa.int32()),
        "status": pa.array([trial.status for trial in trials], pa.string()),
        aim.metric: pa.array([aim.best(trial.history) for trial in trials], pa.float64()),
    }
    if aim.also is not None:
        front, found = front_of(trials, aim), [aim.values(trial.history) for trial in trials]
        columns[aim.also.metric] = pa.array([values[1] if values else None for values in found], pa.float64())
        columns["on_front"] = pa.array([trial in front for trial in trials], pa.bool_())
    columns["epochs"] = pa.array([trial.epochs for trial in trials], pa.float64())
    columns["seconds"] = pa.array([trial.seconds for trial in trials], pa.float64())
    columns["reason"] = pa.array([trial.reason or None for trial in trials], pa.string())
    return pa.table(columns | {name: _column([trial.value_of(name, defaults) for trial in trials]) for name in fields})


def _column(values: list[Any]) -> pa.Array:
    """Of one type where the values are; else as words."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())
