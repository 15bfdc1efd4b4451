"""A table of what one change at a time does: rows in the order they were asked for, seeds put together.

Every number is out of the scores of runs: a mean over seeds with its standard deviation, and a 95 % interval that holds
the luck of seeds and of rows. Rows are tested against one of them, resample by resample on the same test rows, and
corrected for their number (Holm). Nothing is ranked: the order is the question's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from xfm.core.errors import Refused
from xfm.core.metric import LEAKAGE, words_of
from xfm.core.parts import TEST
from xfm.judging.comparison import Comparison, few_groups
from xfm.judging.representations import UNSEEING
from xfm.studies.compare.difference import corrected, difference
from xfm.studies.compare.finished_run import TRAINED, Metric, Run, StoredScore
from xfm.studies.compare.row import BoardRow, Column, Measure, Pick, measure_of

SCORES = ("accuracy", "balanced_accuracy", "f1", "weighted_f1", "within_accuracy")
SHOWN = tuple(Column(Metric("", name), TEST.word) for name in SCORES)
TESTED = SHOWN[0]


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
    row: BoardRow | None = None  # its runs, what was picked of each, and its test; None without a run
    label: str = ""  # what its classifier told
    reasons: Mapping[Column, str] = field(default_factory=dict)  # by column, why it has no number there

    @property
    def measures(self) -> Mapping[Column, Measure]:
        return self.row.measures if self.row else {}

    @property
    def against(self) -> Comparison | None:
        """Minus the row that all are tested against; None for that row, and where nothing is paired."""
        return self.row.against if self.row else None


@dataclass(frozen=True, slots=True, eq=False)
class Ablation:
    """The whole table."""

    label: str  # what classifiers told
    columns: tuple[Column, ...]  # of numbers
    rows: tuple[AblationRow, ...]  # in order
    against: str = ""  # title of the row that all are tested against; empty where none was named
    notes: tuple[str, ...] = ()  # what a reader must know
    test_rows: str = ""  # what all rows were judged on, in words


def ablation(asked: Sequence[Asked], against: str | None = None) -> Ablation:
    """The table: its rows in order, all tested against the one that has the title `against`.

    Raises:
        Refused: NOTHING_TO_COMPARE, or OTHER_LABELS where rows tell different things.
    """
    rows = [_row(each) for each in asked]
    labels = list(dict.fromkeys(row.label for row in rows if row.label))
    if not labels:
        lacking = next((f"; {row.asked.lacking}" for row in rows if row.asked.lacking), "")
        raise Refused("NOTHING_TO_COMPARE", f"no member has scores of a classifier{lacking}")
    if len(labels) > 1:
        told = "; ".join(f"{row.asked.title}: {row.label}" for row in rows if row.label)
        raise Refused("OTHER_LABELS", f"one table is of one label, and its rows tell {', '.join(labels)}. {told}")
    (label,) = labels
    found = dict.fromkeys(column for row in rows for column in row.measures)
    columns = sorted(found, key=lambda column: SHOWN.index(column) if column in SHOWN else len(SHOWN))
    rows = [replace(row, reasons={c: _reason(row, c) for c in columns if c not in row.measures}) for row in rows]
    first = next((row.row for row in rows if row.asked.title == against), None)
    if first is not None:
        tests = corrected([_minus(row.row, first, label) for row in rows])
        rows = [
            replace(row, row=replace(row.row, against=test)) if row.row and test else row
            for row, test in zip(rows, tests, strict=True)
        ]
    data = {run.data_of(label) for row in rows if row.row for run in row.row.runs}
    notes = _notes(rows, first, len(data))
    judged = "the same test rows" if len(data) <= 1 else "test rows that are not all the same"
    return Ablation(label, tuple(columns), tuple(rows), against or "", tuple(notes), judged)


def is_leakage(column: Column) -> bool:
    """Whether a column says how well a fresh probe tells what the features should not."""
    return column.metric.task.startswith(LEAKAGE)


def _row(asked: Asked) -> AblationRow:
    """A row whose scores are not there lacks them, and the others stay."""
    if not asked.runs:
        return AblationRow(asked)
    try:
        row, label = _plain(asked)
    except Refused as problem:
        return AblationRow(asked._replace(runs=(), lacking=f"{problem.code}: {problem.message}"))
    columns = dict.fromkeys(SHOWN, label)  # that its scores can fill, and the label that each is about
    for score in (score for run in row.runs for score in run.scores):
        if score.metric.task.startswith(LEAKAGE) and score.metric.name == "auroc" and score.split == TEST.word:
            columns[Column(score.metric, TEST.word)] = score.label
    found = {column: measure_of(row.parts, about, column) for column, about in columns.items()}
    whole = {column: each for column, each in found.items() if each and len(each.values) == len(row.runs)}
    return AblationRow(asked, replace(row, measures=whole), label)


def _plain(asked: Asked) -> tuple[BoardRow, str]:
    """What was picked of each run, its classifier's scores without its name so that rows stand in one column; and the
    label that the classifier told."""
    runs, picks, label = [], [], ""
    for run in asked.runs:
        task = asked.task or (TRAINED if run.job == TRAINED else run.chooses.task)
        own = [score for score in run.scores if score.metric.task == task and score.split == TEST.word]
        label = own[0].label if own else label
        pick = _picked(asked, run, own, task)
        picks.append(pick)
        every = [score for score in run.scores if score.representation == pick.name]
        kept = [replace(s, metric=Metric("", s.metric.name)) for s in every if s.metric.task == task]
        kept += [replace(s, metric=Metric(f"{LEAKAGE} of {s.label}", s.metric.name)) for s in every
                 if s.metric.task == LEAKAGE]  # fmt: skip
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
    return Pick(wanted, every[wanted].kind, every[wanted].layer)


def _reason(row: AblationRow, column: Column) -> str:
    if row.row is None:
        return row.asked.lacking
    if not is_leakage(column):
        return f"its run did not score {words_of(column.metric.name)}, or not for every seed"
    if row.row.picks[0].name in UNSEEING:
        return "looks at no cell, so there are no features that could tell anything"
    return "its run measured no leakage: it has no features of its own, or the attribute is not known"


def _minus(row: BoardRow | None, first: BoardRow, label: str) -> Comparison | None:
    if row is None or row is first:
        return None
    if {run.data_of(label) for run in row.runs} != {run.data_of(label) for run in first.runs}:
        return None
    return difference(row, first, TESTED, label)


def _notes(rows: Sequence[AblationRow], first: BoardRow | None, data: int) -> list[str]:
    """`data` counts the sets of rows that were judged."""
    held = [row for row in rows if row.row is not None]
    notes = []
    if data > 1:
        notes.append(f"Rows were judged on {data} different sets of rows: their numbers cannot be compared, and "
                     "only rows on those of the reference row are tested.")  # fmt: skip
    if first is not None and (lost := [r.asked.title for r in held if r.row is not first and r.against is None]):
        notes.append(f"Not tested, for want of shared rows, split and resamples: {', '.join(lost)}.")
    if len({len(row.asked.runs) for row in held if row.asked.runs[0].job == TRAINED}) > 1:
        notes.append("Rows rest on different numbers of seeds: see the column.")
    tests = [row.against for row in rows if row.against is not None]
    notes += dict.fromkeys(few for test in tests if (few := few_groups(test.groups)))
    if any(test.seeds == 1 for test in tests):
        notes.append("Rows of one seed: how much its luck matters is not known, so that no recipe can be told from "
                     "another. Train each from several seeds.")  # fmt: skip
    return notes
