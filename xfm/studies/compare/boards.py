"""Many runs on one board: the same cells in a column, seeds merged, rows ranked by their validation scores.

Layers are chosen and rows are ranked on validation cells; test cells are shown, and tested once: every row against the
first, on shared resamples, corrected for their number (Holm). A number of other cells never stands in the same column.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal

from xfm.core.errors import Refused
from xfm.core.metric import PRIMARY, words_of
from xfm.judging.representations import UNSEEING
from xfm.judging.row_noun import ROWS
from xfm.studies.compare.difference import corrected, difference
from xfm.studies.compare.finished_run import CLASSIFIERS, COMMON, REPORTED, UNREAD, Metric, Run
from xfm.studies.compare.row import BoardRow, Column, rows_of

SHOWN = ("test", "all", REPORTED)  # which cells a column shows; validation cells only rank


@dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """What may stand in one column."""

    name: str  # A, B, ...
    # that judged the same cells by the same label, split by the same rule; seeds draw splits of their own
    runs: tuple[Run, ...]
    label: str = ""  # which one; empty for jobs that judge by none

    def __str__(self) -> str:
        first = self.runs[0]
        return ", ".join(filter(None, (f"{self.name}: {first.noun} {first.data_of(self.label)[:8]}", first.design)))


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
        metrics, labels, representations: as in `Leaderboards`.
        is_by_data: data sets may differ and get columns of their own.

    Raises:
        Refused: OTHER_DATA, NO_METRIC, NO_LABEL or NO_REPRESENTATION.
    """
    _check_names(runs, metrics, labels, representations)
    boards = []
    for (job, label), asked in _questions(runs, labels).items():
        about = _data_sets(asked, label)
        if len(about) > 1 and not is_by_data:
            raise _other_data(label or job, about)
        for data in about:
            where = f" on {data.name}" if len(about) > 1 else ""
            beside = [] if job else list(_of_classifiers(where, data, label, metrics, representations))
            plain = replace(data, runs=tuple(run.frozen() for run in data.runs))
            own = _board((label or job) + where, plain, job, label, metrics, representations)
            # Where something was trained for the label, or asked for it by words, that is the question.
            first = any(score.metric.task in UNREAD for run in data.runs for score in run.scores)
            boards += [*beside, own] if first else [own, *beside]
    return [board for board in boards if board.rows]


def _of_classifiers(
    where: str, data: DataSet, label: str, metrics: Sequence[str], representations: Sequence[str]
) -> Iterator[Board]:
    """For each metric that was asked for one board: frozen layers read by probe or SVM beside fine-tuned and zero-shot
    models. All stand in one column, are picked and ranked on validation rows, and are subtracted draw by draw where
    rows, split and resamples are the same ones.
    """
    parts = [part for run in data.runs for task in CLASSIFIERS if (part := run.of_classifier(task, label)).scores]
    tasks = {part.classifier for part in parts}
    if len(tasks) < 2 and not tasks & set(UNREAD):
        return  # such a board would say no more than that of representations
    asked = [column.metric for column in _columns(data.runs, label, metrics, "")]
    names = list(dict.fromkeys(metric.name for metric in asked if metric.task in CLASSIFIERS))
    if "primary" in metrics:
        primary = {PRIMARY[task] for task in tasks}
        names = [primary.pop() if len(primary) == 1 else COMMON]
    for metric in names:
        held = replace(data, runs=tuple(part for part in parts if any(s.metric.name == metric for s in part.scores)))
        name = f"{label} by any classifier{where}"
        yield _board(name, held, "", label, (metric,), representations, classified=metric)


def _questions(runs: Sequence[Run], labels: Sequence[str]) -> dict[tuple[str, str], list[Run]]:
    """(job, label) of every leaderboard and the runs that it may show, in their order."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        own = dict.fromkeys((run.job, "") if score.kind == REPORTED else ("", score.label) for score in run.scores)
        for job, label in own:
            if not labels or label in labels or job:
                found.setdefault((job, label), []).append(run)
    return found


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
    tests = corrected([difference(row, rows[0], primary, label) for row in rows[1:]])
    rows[1:] = [replace(row, against=test) for row, test in zip(rows[1:], tests, strict=True)]
    return Board(name, data, job, label, columns, tuple(rows), by, classified)


def _is_named(metrics: Sequence[str]) -> bool:
    return not {"primary", "all"} & set(metrics)


def _columns(runs: Sequence[Run], label: str, metrics: Sequence[str], job: str) -> tuple[Column, ...]:
    """Asked-for metrics in their order; else the primary ones first."""
    splits: dict[Metric, set[str]] = {}
    for run in runs:
        for score in run.scores:
            if score.split in SHOWN and (score.label == label or job):
                splits.setdefault(score.metric, set()).add(score.split)
    if _is_named(metrics):
        found = [m for word in metrics for m in splits if word in (m.name, f"{m.task}.{m.name}")]
    else:
        order = {task: number for number, task in enumerate(PRIMARY)}
        found = sorted(splits, key=lambda m: (PRIMARY.get(m.task) != m.name, order.get(m.task, len(order))))
    return tuple(Column(m, next(split for split in SHOWN if split in splits[m])) for m in dict.fromkeys(found))


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


def _data_sets(runs: Sequence[Run], label: str) -> list[DataSet]:
    """Runs by what they judged for a label, in their order."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        found.setdefault((run.data_of(label), run.design), []).append(run)
    return [DataSet(_letter(number), tuple(some), label) for number, some in enumerate(found.values())]


def _letter(number: int) -> str:
    """A to Z, then AA."""
    return ("" if number < 26 else _letter(number // 26 - 1)) + chr(ord("A") + number % 26)


def _other_data(what: str, about: Sequence[DataSet]) -> Refused:
    held = "; ".join(f"{data} ({', '.join(run.name for run in data.runs)})" for data in about)
    return Refused(
        "OTHER_DATA",
        f"{what}: {sum(len(data.runs) for data in about)} runs were judged on {len(about)} different data sets, and "
        f"their numbers cannot stand in one column. {held}. Judge all on the same rows, labels and --group; or give "
        "`--columns data`, which puts each data set in columns of its own",
    )
