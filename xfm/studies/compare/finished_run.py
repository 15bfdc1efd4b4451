"""A finished run as `compare` sees it: what ran on which cells, and its scores with their draws.

Runs of `evaluate` bring scores.parquet, a row for each (representation, task, label, metric, split); of other jobs the
numbers of report.json are all there is to compare.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from xfm.core.config import fingerprint
from xfm.core.errors import Refused
from xfm.core.metric import PRIMARY, TASK_WORDS, words_of

# Classifiers that may stand beside one another on the same rows, whatever made their predictions. Those that read a
# frozen representation stand on the boards of representations too; the others are rows of their own.
CLASSIFIERS = ("probe", "svm", "finetune", "zero_shot")
TRAINED = "finetune"  # job that trains what it judges, and the task of its scores, which nothing is chosen of
UNREAD = (TRAINED, "zero_shot")
COMMON = "f1"  # what they are compared by where their own numbers are different ones: it is everyone's
WEIGHTS = "mix"  # rows of this task are no scores: the weights of a learned mix of layers
REPORTED = "report"  # representation, kind and split of a number that a report states
COLUMNS = ("representation", "kind", "pool", "layer", "task", "label", "metric", "split", "value", "low", "high",
           "cells", "groups", "draws")  # fmt: skip


class RunRefused(Refused):
    """One run cannot be compared: it is listed with its reason, and the others go on."""


class Metric(NamedTuple):
    """What was measured; `task` is the job's name where a report states the number, and empty for any classifier's."""

    task: str
    name: str

    def __str__(self) -> str:
        return f"{TASK_WORDS.get(self.task, self.task)} {words_of(self.name, self.task)}".lstrip()


CHOOSES = Metric("probe", PRIMARY["probe"])


@dataclass(frozen=True, slots=True, eq=False)
class StoredScore:
    """One number of one representation."""

    representation: str
    kind: str
    pool: str | None
    layer: int | None
    metric: Metric
    label: str
    split: str
    value: float | None  # None where it is not defined
    low: float | None = None  # low, high: 95 % interval; None without one
    high: float | None = None
    cells: int | None = None  # cells, groups: how many it was computed on; None where the run does not say
    groups: int | None = None
    draws: NDArray[np.float64] | None = None  # (B,) its resamples; None where it has none


@dataclass(frozen=True, eq=False)
class Run:
    """One OUTPUT, read."""

    name: str  # as it was asked for
    place: str  # its OUTPUT, absolute, without credentials
    job: str
    fingerprint: str  # of its recipe
    family: str  # of its recipe without seeds: runs of one family are repetitions of one another
    seed: int  # of the job
    data: str  # digest of what was judged, see `data_digest`
    design: str  # how cells were split, in words; empty where the job splits none
    split: str  # digest of the split that the seed drew: where it is the same, draws may be subtracted
    data_name: str  # the data in a word; may be empty
    model: str  # kind of backbone, or empty
    weights: str  # SHA-256 of its weights, or empty
    scores: Sequence[StoredScore]  # those that were asked for, and the validation scores that layers are chosen by
    choice: Mapping[str, str]  # the representation that the run itself chose for a label, without looking at test cells
    seconds: Mapping[str, float]  # by representation; under "" those of the whole job
    metrics: Sequence[Metric] = ()  # all that it has, asked for or not
    results: str = ""  # SHA-256 of scores.parquet, or empty: tells whether two runs of one recipe found the same
    tracked: str = ""  # address or id of its MLflow run, or empty
    chooses: Metric = CHOOSES  # the metric that layers are chosen by, on validation rows
    noun: str = "rows"  # what it calls rows
    classifier: str = ""  # the task, where only the scores of one classifier are meant
    # digests of what was judged for one label, where the job says so
    data_by_label: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_trained(self) -> bool:
        """Whether the seed drew the training of what is judged, and not only of what reads it."""
        return self.job == TRAINED

    def data_of(self, label: str) -> str:
        """Digest of what was judged for a label: another label beside it makes no other data of it."""
        return self.data_by_label.get(label, self.data)

    def find(self, representation: str, label: str, metric: Metric, split: str) -> StoredScore | None:
        return self._by_name.get((representation, label, metric, split))

    def frozen(self) -> "Run":
        """The run without the scores of classifiers that read no representation."""
        scores = [score for score in self.scores if score.metric.task not in UNREAD]
        return self if len(scores) == len(self.scores) else replace(self, scores=scores)

    def of_classifier(self, task: str, label: str) -> "Run":
        """What one classifier said of the label, as a run of its own whose scores bear no classifier's name."""
        own = [score for score in self.scores if score.metric.task == task and score.label == label]
        return replace(
            self, scores=[replace(score, metric=Metric("", score.metric.name)) for score in own],
            family=f"{self.family} {task}", classifier=task, chooses=Metric("", PRIMARY[task]),
            # A layer that another classifier chose is not this one's choice.
            choice=self.choice if self.chooses.task == task else {},
        )  # fmt: skip

    @cached_property
    def _by_name(self) -> dict[tuple[str, str, Metric, str], StoredScore]:
        return {(score.representation, score.label, score.metric, score.split): score for score in self.scores}


def data_digest(run: Mapping[str, Any]) -> str:
    """What a run judged, by its run.json: only numbers of equal digests may stand in one column.

    `evaluate` states the cells and labels that it judged in recipe.cells, so that two models of the same cells share
    the digest; for other jobs it is that of the data they read.
    """
    recipe = run["recipe"]
    return str(recipe.get("cells") or fingerprint(dict(recipe.get("data") or {})))


def design_of(config: Mapping[str, Any]) -> str:
    """How a job's config splits rows, but for the seed: with a donor on both sides the same rows are easier.

    Of rows that come split only the column counts: which training rows became validation rows is in the split's digest.
    """
    if config.get("split"):
        return f"split as {config['split']} states"
    if not {"group", "validation", "test"} <= config.keys():
        return ""
    by = config["group"] or "single rows"
    return f"split by {by}, {config['validation']:g} validation, {config['test']:g} test"


def family_of(recipe: Mapping[str, Any]) -> str:
    """Fingerprint of a recipe without its seeds and the split they draw."""
    return fingerprint(_seedless({name: value for name, value in recipe.items() if name != "split"}))


def _seedless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _seedless(inner) for name, inner in value.items() if name != "seed"}
    return [_seedless(inner) for inner in value] if isinstance(value, list) else value


def model_of(value: Any) -> str:
    """The kind of the first backbone that run.json names at any depth, or empty."""
    if not isinstance(value, Mapping):
        return ""
    backbone = value.get("backbone")
    if isinstance(backbone, Mapping) and isinstance(backbone.get("kind"), str):
        return str(backbone["kind"])
    return next(filter(None, map(model_of, value.values())), "")


def choice_of(report: Mapping[str, Any]) -> dict[str, str]:
    """{label: representation} where the report says that it was chosen on validation cells."""
    choice = report.get("provenance", {}).get("choice") or {}
    return {
        label: str(entry["representation"])
        for label, entry in choice.items()
        if entry.get("chosen_on") == "validation" and "representation" in entry
    }


def wants(metric: Metric, names: Collection[str]) -> bool:
    """Whether a metric was asked for: `primary`, `all`, its name, or TASK.NAME."""
    if "all" in names or {metric.name, f"{metric.task}.{metric.name}"} & set(names):
        return True
    primary = PRIMARY.get(metric.task, metric.name)
    return "primary" in names and metric.name in ((primary, COMMON) if metric.task in CLASSIFIERS else (primary,))


def chooses_of(config: Mapping[str, Any], known: Collection[Metric]) -> Metric:
    """What layers of a run are chosen by: what its config says, else the first classifier that it has."""
    first = next((task for task in CLASSIFIERS if task in {metric.task for metric in known}), CLASSIFIERS[0])
    task = str(config.get("choose_by") or first)
    return Metric(task, PRIMARY.get(task, COMMON))


def read_scores(data: bytes, place: str, names: Collection[str]) -> tuple[list[StoredScore], list[Metric]]:
    """Scores out of scores.parquet: those that `wants` names, and the primary ones on validation cells; and every
    metric that the file has.

    Raises:
        RunRefused: BAD_SCORES; not a Parquet file, or not of this layout.
    """
    try:
        table = pq.read_table(pa.BufferReader(data), columns=list(COLUMNS))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowKeyError, OSError) as problem:
        raise RunRefused("BAD_SCORES", f"{place}/scores.parquet cannot be read: {problem}") from problem
    if missing := [name for name in COLUMNS if name not in table.column_names]:
        raise RunRefused("BAD_SCORES", f"{place}/scores.parquet has no column {', '.join(missing)}: another version's?")
    table = table.filter(pc.not_equal(table["task"], WEIGHTS))
    pairs = table.select(["task", "metric"]).group_by(["task", "metric"], use_threads=False).aggregate([])
    known = [Metric(pair["task"], pair["metric"]) for pair in pairs.to_pylist()]
    wanted = pa.array([f"{metric.task}\x1f{metric.name}" for metric in known if wants(metric, names)], pa.string())
    own = pc.binary_join_element_wise(table["task"].cast(pa.string()), table["metric"].cast(pa.string()), "\x1f")
    by = pa.array([f"{task}\x1f{name}" for task, name in PRIMARY.items()])
    chosen_by = pc.and_(pc.is_in(own, by), pc.equal(table["split"], "validation"))
    rows = table.filter(pc.or_(pc.is_in(own, wanted), chosen_by))
    # Draws stay arrays: as Python floats they would be most of the memory.
    every = [() if row.values is None else row.values.to_numpy(zero_copy_only=False) for row in rows["draws"]]
    plain = rows.drop_columns(["draws"]).to_pylist()
    return [_score(row, np.asarray(draws, np.float64)) for row, draws in zip(plain, every, strict=True)], known


def _score(row: Mapping[str, Any], draws: NDArray[np.float64]) -> StoredScore:
    return StoredScore(
        row["representation"], row["kind"], row["pool"], row["layer"], Metric(row["task"], row["metric"]), row["label"],
        row["split"], _finite(row["value"]), _finite(row["low"]), _finite(row["high"]), row["cells"], row["groups"],
        draws if np.isfinite(draws).any() else None,
    )  # fmt: skip


def reported_scores(
    job: str, numbers: Mapping[str, Any], names: Collection[str]
) -> tuple[list[StoredScore], list[Metric]]:
    """Numbers of report.json as scores without draws; words are left out."""
    scores = []
    for name, value in numbers.items():
        ends = value if isinstance(value, Mapping) else {"value": value}
        if isinstance(ends.get("value"), int | float) and not isinstance(ends["value"], bool):
            value, low, high = (_finite(ends.get(end)) for end in ("value", "low", "high"))
            metric = Metric(job, name)
            scores.append(StoredScore(REPORTED, REPORTED, None, None, metric, "", REPORTED, value, low, high))
    return [score for score in scores if wants(score.metric, names)], [score.metric for score in scores]


def _finite(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
