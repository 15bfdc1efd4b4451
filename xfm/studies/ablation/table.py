"""A table of what one change at a time does: rows in the order they were asked for, seeds put together.

Every number is out of the scores of runs: a mean over seeds with its standard deviation, and the 95 % interval of the
resamples of all seeds together. Rows are tested against one of them, resample by resample on the same test rows, and
corrected for their number (Holm). Nothing is ranked: the order is the question's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from xfm.core.errors import Refused
from xfm.core.metric import LEAKAGE, words_of
from xfm.core.parts import TEST
from xfm.judging.representations import UNSEEING
from xfm.metrics.paired import holm
from xfm.studies.compare.boards import difference
from xfm.studies.compare.finished_run import Metric, Run, StoredScore
from xfm.studies.compare.row import Against, BoardRow, Column, Measure, Pick, measure_of

TRAINED = "finetune"  # job that trains what it judges, and the task of its scores, which nothing is chosen of
SHOWN = ("accuracy", "balanced_accuracy", "f1", "weighted_f1", "within_accuracy")
TESTED = Column(Metric("", "accuracy"), TEST.word)


class Asked(NamedTuple):
    """A row as it is asked for."""

    title: str  # its first column
    words: Mapping[str, str]  # further columns, of its settings
    runs: tuple[Run, ...]  # one a seed
    task: str | None = None  # task, representation: whose scores; None for what the runs trained or chose themselves
    representation: str | None = None
    series: str = ""  # whose points a trade-off joins; empty for a point of its own
    published: Mapping[str, float] = {}  # numbers that others state for it, on other data, by metric
    lacking: str = ""  # why the row has no run, where it has none


@dataclass(frozen=True, slots=True, eq=False)
class AblationRow:
    """A row with its numbers."""

    asked: Asked  # what it is
    row: BoardRow | None  # its runs and what was picked of each; None without a run
    measures: Mapping[Column, Measure]  # by column; what a row does not have is missing
    reasons: Mapping[Column, str]  # by column, why it is missing
    # minus the row that all are tested against; None for that row, and where nothing is paired
    against: Against | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Ablation:
    """The whole table."""

    label: str  # what classifiers told
    columns: tuple[Column, ...]  # of numbers
    rows: tuple[AblationRow, ...]  # in order
    against: str = ""  # title of the row that all are tested against; empty where none was named
    notes: tuple[str, ...] = field(default=())  # what a reader must know
    is_of_same_rows: bool = True  # whether all rows were judged on the same ones


def ablation(asked: Sequence[Asked], against: str | None = None) -> Ablation:
    """The table.

    Args:
        asked: its rows, in order.
        against: title of the one that all others are tested against.

    Raises:
        Refused: NOTHING_TO_COMPARE, or OTHER_LABELS where rows tell different things.
    """
    found = [_found(each) for each in asked]
    labels = list(dict.fromkeys(label for _, _, label in found if label))
    if not labels:
        lacking = next((each.lacking for each, _, _ in found if each.lacking), "")
        raise Refused(
            "NOTHING_TO_COMPARE", "no member has scores of a classifier" + (f"; {lacking}" if lacking else "")
        )
    if len(labels) > 1:
        told = "; ".join(f"{each.title}: {label}" for each, _, label in found if label)
        raise Refused("OTHER_LABELS", f"one table is of one label, and its rows tell {', '.join(labels)}. {told}")
    (label,) = labels
    rows = [_row(each, row, label) for each, row, _ in found]
    columns = tuple(dict.fromkeys(column for column in _all_columns(rows)))
    rows = [replace(row, reasons=_reasons(row, columns)) for row in rows]
    first = next((row.row for row in rows if row.asked.title == against), None)
    tested = _tested(rows, first, label)
    notes = tuple(_notes(tested, first, label))
    return Ablation(label, columns, tuple(tested), against or "", notes, len(_data(tested, label)) <= 1)


def _found(asked: Asked) -> tuple[Asked, BoardRow | None, str]:
    """A row whose scores are not there lacks them, and the others stay."""
    try:
        return asked, *_plain(asked)
    except Refused as problem:
        return asked._replace(runs=(), lacking=f"{problem.code}: {problem.message}"), None, ""


def _plain(asked: Asked) -> tuple[BoardRow | None, str]:
    """What was picked of each run, its classifier's scores without its name so that rows stand in one column; and the
    label that the classifier told."""
    if not asked.runs:
        return None, ""
    runs, picks, label = [], [], ""
    for run in asked.runs:
        task = asked.task or (TRAINED if run.job == TRAINED else run.chooses.task)
        own = [score for score in run.scores if score.metric.task == task and score.split == TEST.word]
        label = own[0].label if own else label
        pick = _picked(asked, run, own, task)
        picks.append(pick)
        kept = [replace(score, metric=Metric("", score.metric.name)) for score in run.scores
                if score.metric.task == task and score.representation == pick.name]  # fmt: skip
        kept += [replace(score, metric=Metric(f"{LEAKAGE} of {score.label}", score.metric.name)) for score in run.scores
                 if score.metric.task == LEAKAGE and score.representation == pick.name]  # fmt: skip
        runs.append(replace(run, scores=kept, classifier=task))
    return BoardRow(tuple(runs), tuple(picks), {}), label


def _picked(asked: Asked, run: Run, own: Sequence[StoredScore], task: str) -> Pick:
    """One representation of a run: named, chosen by the run, or the only one there is."""
    every = {score.representation: score for score in own}
    wanted = asked.representation or run.choice.get(own[0].label if own else "")
    layers = [name for name, score in every.items() if score.kind == "layer"]
    if wanted is None and len(layers) == 1:
        wanted = layers[0]
    if wanted not in every:
        raise Refused("NO_SCORES", f"row {asked.title!r}: {run.name} has no scores of task {task} on test rows for "
                      f"{wanted or 'one representation alone'}. It has tasks "
                      f"{', '.join(sorted({s.metric.task for s in run.scores}))}, and of {task} "
                      f"{', '.join(every) or 'nothing'}: say task and representation of the row")  # fmt: skip
    score = every[wanted]
    return Pick(score.representation, score.kind, score.layer)


def _row(asked: Asked, row: BoardRow | None, label: str) -> AblationRow:
    if row is None:
        return AblationRow(asked, None, {}, {})
    measures: dict[Column, Measure] = {}
    for column, about in _columns(row, label).items():
        found = measure_of(row.parts, about, column)
        if found is not None and len(found.values) == len(row.runs):
            measures[column] = found
    return AblationRow(asked, replace(row, measures=measures), measures, {})


def _columns(row: BoardRow, label: str) -> dict[Column, str]:
    """Columns that the row's scores can fill, and the label that each is about."""
    found = {Column(Metric("", name), TEST.word): label for name in SHOWN}
    for run in row.runs:
        for score in run.scores:
            if score.metric.task.startswith(LEAKAGE) and score.metric.name == "auroc" and score.split == TEST.word:
                found[Column(score.metric, TEST.word)] = score.label
    return found


def _all_columns(rows: Sequence[AblationRow]) -> list[Column]:
    order = [Column(Metric("", name), TEST.word) for name in SHOWN]
    found = [column for row in rows for column in row.measures]
    return [*(column for column in order if column in found), *(column for column in found if column not in order)]


def _reasons(row: AblationRow, columns: Sequence[Column]) -> dict[Column, str]:
    lacking = [column for column in columns if column not in row.measures]
    if row.row is None:
        return dict.fromkeys(lacking, row.asked.lacking)
    return {column: _reason(row.row, column) for column in lacking}


def _reason(row: BoardRow, column: Column) -> str:
    if column.metric.task.startswith(LEAKAGE):
        if row.picks[0].name in UNSEEING:
            return "looks at no cell, so there are no features that could tell anything"
        return "its run measured no leakage: it has no features of its own, or the attribute is not known"
    return f"its run did not score {words_of(column.metric.name)}, or not for every seed"


def _tested(rows: Sequence[AblationRow], first: BoardRow | None, label: str) -> list[AblationRow]:
    """Every row against the one that was named."""
    if first is None:
        return list(rows)
    found = [None if row.row is None or row.row is first else _minus(row.row, first, label) for row in rows]
    adjusted = holm(np.array([one.p if one else np.nan for one in found]))
    return [
        replace(row, against=one._replace(p=float(p)) if one else None)
        for row, one, p in zip(rows, found, adjusted, strict=True)
    ]


def _minus(row: BoardRow, first: BoardRow, label: str) -> Against | None:
    if {run.data_of(label) for run in row.runs} != {run.data_of(label) for run in first.runs}:
        return None
    return difference(row, first, TESTED, label)


def _data(rows: Sequence[AblationRow], label: str) -> set[str]:
    """Digests of what was judged."""
    return {run.data_of(label) for row in rows if row.row is not None for run in row.row.runs}


def _notes(rows: Sequence[AblationRow], first: BoardRow | None, label: str) -> list[str]:
    held = [row for row in rows if row.row is not None]
    data = _data(rows, label)
    notes = []
    if len(data) > 1:
        notes.append(f"Rows were judged on {len(data)} different sets of rows: their numbers cannot be compared, and "
                     "only rows on those of the reference row are tested.")  # fmt: skip
    if first is not None and (lost := [r.asked.title for r in held if r.row is not first and r.against is None]):
        notes.append(f"Not tested, for want of shared rows, split and resamples: {', '.join(lost)}.")
    trained = [row.row.runs for row in held if row.row is not None and row.row.runs[0].job == TRAINED]
    seeds = {len(runs) for runs in trained}
    if len(seeds) > 1:
        notes.append("Rows rest on different numbers of seeds: see the column.")
    tests = [row.against for row in rows if row.against is not None]
    if tests and (coarse := max(test.finest for test in tests) * len(tests)) >= 0.05:
        notes.append(f"{len(tests)} tests on so few resamples cannot give a corrected p below {coarse:.2f}: no "
                     "difference can be told from noise. Raise --bootstrap of the members.")  # fmt: skip
    return notes
