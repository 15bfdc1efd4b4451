"""Trials of a search: what was tried, how far it came, and what it reached on validation rows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pyarrow as pa

from xfm.loops.training.settings import Record

Status = Literal["running", "finished", "pruned", "failed"]
DEFAULT = 0  # number of the trial that is the job as it was given


@dataclass(frozen=True, slots=True)
class Aim:
    """What a search wants.

    Attributes:
        metric: name of a record's entry, e.g. "validation_f1".
        is_lower_better: less of it is better.
    """

    metric: str
    is_lower_better: bool = False

    @classmethod
    def of(cls, watch: str) -> "Aim":
        """From the form that `Settings.watch` has: "-" in front where lower is better."""
        return cls(watch.removeprefix("-"), watch.startswith("-"))

    @property
    def watch(self) -> str:
        """As `Settings.watch`."""
        return f"{'-' if self.is_lower_better else ''}{self.metric}"

    def merit(self, value: float) -> float:
        """Higher is better."""
        return -value if self.is_lower_better else value

    def best(self, history: Sequence[Record]) -> float | None:
        """The best value of the metric in some records; None where none has it."""
        values = [record[self.metric] for record in history if self.metric in record]
        return max(values, key=self.merit) if values else None


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial.

    Attributes:
        number: from 0; it names the trial in OUTPUT and in MLflow, and what it is called does not depend on when or
            how often it was started.
        values: what was drawn, by dotted field; of trial 0 nothing was.
        status: running, until it ended of itself, was pruned, or failed.
        history: its validation records, as in `xfm.loops.training.settings.Progress`.
        reason: why it failed.
        is_final: a failure that would be the same another time.
    """

    number: int
    values: dict[str, Any]
    status: Status = "running"
    history: list[Record] = field(default_factory=list)
    reason: str = ""
    is_final: bool = True

    @property
    def name(self) -> str:
        """`trial-003`."""
        return f"trial-{self.number:03d}"

    @property
    def epochs(self) -> float:
        """Passes over the training rows until its last validation."""
        return self.history[-1]["epoch"] if self.history else 0.0

    @property
    def seconds(self) -> float:
        """Spent training, until its last validation."""
        return self.history[-1]["seconds"] if self.history else 0.0

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def is_over(trial: Trial) -> bool:
    """Whether it has nothing left to do."""
    return trial.status in ("finished", "pruned")


def best_of(trials: Sequence[Trial], aim: Aim) -> Trial | None:
    """The trial with the best value among those that ran to their end; the first of equals.

    A pruned trial was behind when it was pruned, and its weights are not what its settings lead to.
    """
    ended = [trial for trial in trials if trial.status == "finished" and trial.history]
    scored = [(trial, aim.best(trial.history)) for trial in ended]
    found = [(aim.merit(value), -trial.number, trial) for trial, value in scored if value is not None]
    return max(found, key=lambda item: item[:2])[2] if found else None


def trials_table(trials: Sequence[Trial], fields: Sequence[str], defaults: dict[str, Any], aim: Aim) -> pa.Table:
    """trials.parquet: one row a trial, one column a field.

    Args:
        trials: in order.
        fields: that were searched.
        defaults: their values in trial 0.
        aim: what was searched for.
    """
    columns: dict[str, Any] = {
        "trial": pa.array([trial.number for trial in trials], pa.int32()),
        "status": pa.array([trial.status for trial in trials], pa.string()),
        aim.metric: pa.array([aim.best(trial.history) for trial in trials], pa.float64()),
        "epochs": pa.array([trial.epochs for trial in trials], pa.float64()),
        "seconds": pa.array([trial.seconds for trial in trials], pa.float64()),
        "reason": pa.array([trial.reason or None for trial in trials], pa.string()),
    }
    for name in fields:
        columns[name] = _column([(defaults | trial.values).get(name) for trial in trials])
    return pa.table(columns)


def _column(values: list[Any]) -> pa.Array:
    """Of one type where the values are; else as words."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())
