"""Many runs on one board: the same cells in a column, seeds merged, the rows ranked by what test cells did not decide.

Layers are chosen and rows are ranked on validation cells; test cells are shown, and tested once: every row against the
first, on shared resamples, corrected for their number (Holm). A number of other cells never stands in the same column.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xfm.core.errors import Refused
from xfm.core.metric import PRIMARY, words_of
from xfm.judging.representations import UNSEEING
from xfm.judging.row_noun import ROWS
from xfm.metrics.paired import bootstrap_difference, holm
from xfm.studies.compare.classifiers import by_classifier, comparable, frozen
from xfm.studies.compare.data_sets import DataSet, data_sets, other_data
from xfm.studies.compare.finished_run import CLASSIFIERS, COMMON, REPORTED, UNREAD, Metric, Run, StoredScore
from xfm.studies.compare.row import Against, BoardRow, Column, rows_of

SHOWN = ("test", "all", REPORTED)  # which cells a column shows; validation cells only rank
F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Board:
    """One leaderboard: the rows of one label on one data set."""

    name: str  # for people: the label, and the data set where there are several
    data: DataSet
    job: str  # whose numbers these are where runs have no scores of representations; else empty
    label: str
    columns: tuple[Column, ...]
    rows: tuple[BoardRow, ...]  # in order
    # validation, shown (no validation scores: the shown number itself), or empty where nothing is ranked: of the first
    # metric it is not known which way is better, or no metric of reports was asked for
    ranked_by: Literal["validation", "shown", ""]
    classified: str = ""  # the metric, on a board where every classifier stands; else empty

    @property
    def noun(self) -> str:
        """What its runs call rows, where they agree."""
        found = {run.noun for run in self.data.runs}
        return found.pop() if len(found) == 1 else ROWS


def compare(
    runs: Sequence[Run],
    metrics: Sequence[str] = ("primary",),
    labels: Sequence[str] = (),
    representations: Sequence[str] = ("best", "last", "baselines"),
    *,
    is_by_data: bool = False,
) -> list[Board]:
    """The leaderboards of some runs: for each label and data set one of representations, and one of classifiers.

    Args:
        runs: no recipe twice.
        metrics: primary, all, or names; the first one ranks.
        labels: which ones; all where empty.
        representations: best, last, baselines, all, or names.
        is_by_data: data sets may differ and get columns of their own.

    Raises:
        Refused: OTHER_DATA, NO_METRIC, NO_LABEL or NO_REPRESENTATION.
    """
    _check_names(runs, metrics, labels, representations)
    boards = []
    for job, label in _questions(runs, labels):
        about = data_sets(_asked(runs, job, label), label)
        if len(about) > 1 and not is_by_data:
            raise other_data(label or job, about)
        for data in about:
            where = f" on {data.name}" if len(about) > 1 else ""
            beside = [] if job else list(_of_classifiers(where, data, label, metrics, representations))
            plain = replace(data, runs=tuple(map(frozen, data.runs)))
            own = _board((label or job) + where, plain, job, label, metrics, representations)
            # Where something was trained for the label, or asked for it by words, that is the question.
            first = any(score.metric.task in UNREAD for run in data.runs for score in run.scores)
            boards += [*beside, own] if first else [own, *beside]
    return [board for board in boards if board.rows]


def _of_classifiers(
    where: str, data: DataSet, label: str, metrics: Sequence[str], representations: Sequence[str]
) -> Iterator[Board]:
    """For each metric that was asked for one board, on which every classifier stands."""
    parts = by_classifier(data.runs, label)
    if not comparable(parts):
        return
    asked = [column.metric for column in _columns(data.runs, label, metrics, "")]
    names = list(dict.fromkeys(metric.name for metric in asked if metric.task in CLASSIFIERS))
    if "primary" in metrics:
        primary = {PRIMARY[part.classifier] for part in parts}
        names = [primary.pop() if len(primary) == 1 else COMMON]
    for metric in names:
        held = replace(data, runs=tuple(part for part in parts if any(s.metric.name == metric for s in part.scores)))
        name = f"{label} by any classifier{where}"
        yield _board(name, held, "", label, (metric,), representations, classified=metric)


def _questions(runs: Sequence[Run], labels: Sequence[str]) -> list[tuple[str, str]]:
    """(job, label) of every leaderboard, in the order of the runs."""
    found = dict.fromkeys(_question(run, score) for run in runs for score in run.scores)
    return [(job, label) for job, label in found if not labels or label in labels or job]


def _question(run: Run, score: StoredScore) -> tuple[str, str]:
    return (run.job, "") if score.kind == REPORTED else ("", score.label)


def _asked(runs: Sequence[Run], job: str, label: str) -> tuple[Run, ...]:
    return tuple(run for run in runs if any(_question(run, score) == (job, label) for score in run.scores))


def _board(
    name: str,
    data: DataSet,
    job: str,
    label: str,
    metrics: Sequence[str],
    representations: Sequence[str],
    classified: str = "",
) -> Board:
    columns = _columns(data.runs, label, metrics, job)
    families: dict[str, list[Run]] = {}
    for run in data.runs:
        families.setdefault(run.family, []).append(run)
    rows = []
    for family in families.values():
        rows += rows_of(sorted(family, key=lambda run: (run.seed, run.fingerprint)), label, columns, representations)
    rows = _without_repeats([row for row in rows if row.measures])
    if not columns or (job and not _is_named(metrics)) or not columns[0].is_ranking:
        return Board(name, data, job, label, columns, tuple(rows), "", classified)
    primary = columns[0]
    rows.sort(key=lambda row: _rank(row, primary))
    by: Literal["validation", "shown"] = "validation" if any(row.rank_by is not None for row in rows) else "shown"
    return Board(name, data, job, label, columns, _tested(rows, primary, label), by, classified)


def _is_named(metrics: Sequence[str]) -> bool:
    return not {"primary", "all"} & set(metrics)


def _columns(runs: Sequence[Run], label: str, metrics: Sequence[str], job: str) -> tuple[Column, ...]:
    """Asked-for metrics in their order; else the primary ones first."""
    splits: dict[Metric, set[str]] = {}
    for run in runs:
        for score in run.scores:
            if score.split in SHOWN and (score.label == label or job):
                splits.setdefault(score.metric, set()).add(score.split)
    found = list(splits)
    if _is_named(metrics):
        asked = [
            metric for word in metrics for metric in found if word in (metric.name, f"{metric.task}.{metric.name}")
        ]
        found = list(dict.fromkeys(asked))
    else:
        tasks = list(PRIMARY)
        found.sort(
            key=lambda m: (PRIMARY.get(m.task) != m.name, tasks.index(m.task) if m.task in tasks else len(tasks))
        )
    return tuple(Column(metric, next(split for split in SHOWN if split in splits[metric])) for metric in found)


def _without_repeats(rows: Sequence[BoardRow]) -> list[BoardRow]:
    """Baselines know nothing of the model: runs on the same cells find the very same ones. Each is kept once."""
    kept: dict[object, BoardRow] = {}
    for number, row in enumerate(rows):
        key: object = _found(row) if row.kind == "baseline" else number
        if key not in kept:
            kept[key] = row
            continue
        fewest, more = sorted((kept[key], row), key=lambda each: len(each.runs))  # seeds of one split are no spread
        known = {run.name for run in fewest.runs} | set(fewest.shared_with)
        others = (run.name for run in more.runs if run.name not in known)
        kept[key] = replace(fewest, shared_with=(*fewest.shared_with, *others, *more.shared_with))
    return list(kept.values())


def _found(row: BoardRow) -> object:
    """What tells a baseline from another: its name, and what it scored on which splits.

    One that looks at nothing scores the same for every seed of one split: there the number of seeds is left out.
    """
    splits = tuple(run.split for run in row.runs)
    if row.representation in UNSEEING and len(set(splits)) == 1:
        values = [(column, frozenset(measure.values)) for column, measure in row.measures.items()]
        return row.representation, splits[0], tuple(values)
    return row.representation, splits, tuple(row.measures.items())


def _rank(row: BoardRow, primary: Column) -> tuple[bool, float, bool, float, str]:
    shown = row.measures.get(primary)
    return (
        row.rank_by is None, primary.cost(row.rank_by or 0.0), shown is None,
        primary.cost(shown.value if shown else 0.0), f"{row.runs[0].name} {row.representation}",
    )  # fmt: skip


def _tested(rows: Sequence[BoardRow], primary: Column, label: str) -> tuple[BoardRow, ...]:
    """Every row against the first."""
    found = [difference(row, rows[0], primary, label) for row in rows[1:]]
    adjusted = holm(np.array([one.p if one else np.nan for one in found]))
    tested = [
        replace(row, against=one._replace(p=float(p)) if one else None)
        for row, one, p in zip(rows[1:], found, adjusted, strict=True)
    ]
    return (*rows[:1], *tested)


def difference(row: BoardRow, first: BoardRow, column: Column, label: str) -> Against | None:
    """A row minus another one: over all runs that share a split and its resamples; None where no two do.

    Seeds draw splits of their own, so draws are subtracted within a seed and put together over seeds: the interval
    holds both the luck of cells and that of seeds. A p-value cannot be finer than the draws of one seed.
    """
    draws: list[tuple[F64, F64]] = []
    values: list[tuple[float, float]] = []
    for (run, pick), (other, rival) in product(row.parts, first.parts):
        a = run.find(pick.name, label, column.metric, column.split)
        b = other.find(rival.name, label, column.metric, column.split)
        if run.split != other.split or a is None or b is None:
            continue
        if a.draws is None or b.draws is None or a.value is None or b.value is None:
            continue
        if (len(a.draws), a.cells, a.groups) == (len(b.draws), b.cells, b.groups):
            draws.append((a.draws, b.draws))
            values.append((a.value, b.value))
    if not draws:
        return None
    own, rivals = (np.concatenate(side) for side in zip(*draws, strict=True))
    value, low, high, p = bootstrap_difference(own, rivals, *np.mean(values, axis=0).tolist())
    finest = 2 / (max(len(one) for one, _ in draws) + 1)
    return Against(value, low, high, max(p, finest), len(draws), finest)


def _check_names(
    runs: Sequence[Run], metrics: Sequence[str], labels: Sequence[str], representations: Sequence[str]
) -> None:
    known = [metric for run in runs for metric in run.metrics]
    names = {f"{metric.task}.{metric.name}": str(metric) for metric in known}
    names |= {metric.name: words_of(metric.name, metric.task) for metric in known}
    _check("NO_METRIC", "--metrics", metrics, names, ("primary", "all"))
    every = [score for run in runs for score in run.scores]
    _check("NO_LABEL", "--labels", labels, {score.label: "" for score in every if score.label}, ())
    seen = {score.representation: "" for score in every}
    _check("NO_REPRESENTATION", "--representations", representations, seen, ("best", "last", "baselines", "all"))


def _check(code: str, flag: str, words: Sequence[str], known: Mapping[str, str], also: Sequence[str]) -> None:
    """Refuses a word that is none of {name: how else it is called}, nor any other; offers the nearest name."""
    meant = {called.lower(): name for name, called in known.items()} | {name.lower(): name for name in (*known, *also)}
    for word in words:
        if word not in known and word not in also:
            near = get_close_matches(word.lower(), meant, n=1)
            hint = f" Did you mean {meant[near[0]]}?" if near else ""
            raise Refused(code, f"{flag} {word}: no run has it.{hint} Known: {', '.join([*also, *sorted(known)])}")
