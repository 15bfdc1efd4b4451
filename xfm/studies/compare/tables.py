"""The tables of a comparison: every leaderboard, data sets side by side, every run; and how a cell is written."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from xfm.core.ledger import Refusal
from xfm.core.report import DASH, Cell, Estimate, Table
from xfm.judging.comparison import Comparison
from xfm.judging.representations import UNSEEING
from xfm.studies.compare.boards import Board
from xfm.studies.compare.finished_run import REPORTED, UNREAD, Run
from xfm.studies.compare.row import BoardRow, Measure

SHORT, FINGERPRINT = 8, 12  # characters of a digest, of a fingerprint


def board_table(board: Board) -> Table:
    """One leaderboard."""
    spread = any(measure.sd is not None for row in board.rows for measure in row.measures.values())
    tested = any(row.against is not None for row in board.rows)
    is_reported = bool(board.job)
    primary, others = board.columns[0], board.columns[1:]
    is_validated = board.ranked_by == "validation"
    heads = [*([] if is_reported else ["representation"]), *(["classifier"] if board.classified else []), "model",
             str(primary)]  # fmt: skip
    heads += ["minus #1", "p (Holm)", "against #1"] if tested else []
    heads += [*(["sd over seeds"] if spread else []), *([f"{primary.metric}, validation"] if is_validated else [])]
    heads += [*map(str, others), *([] if is_reported else ["layer", board.noun, "groups"])]
    heads += ["seeds", "train time, s", "run", "fingerprint"]
    rows: list[list[Cell]] = []
    for number, row in enumerate(board.rows, 1):
        first = row.measures.get(primary)
        names = [] if is_reported else [row.representation]
        names += [row.classifier or DASH] if board.classified else []
        names.append(model_of_row(row) or DASH)
        line: list[Cell] = [f"{number}. {names[0]}" if board.ranked_by else names[0], *names[1:], number_of(first)]
        line += test_of(row.against) if tested else []
        line += [first.sd if first else None] if spread else []
        line += [row.rank_by] if is_validated else []
        line += [number_of(row.measures.get(column)) for column in others]
        line += [] if is_reported else [_layers(row), first.cells if first else None, first.groups if first else None]
        line += [", ".join(map(str, row.seeds)), row.seconds]
        line += [_several([run.name for run in row.runs], len(row.shared_with))]
        line += [_several([run.fingerprint[:FINGERPRINT] for run in row.runs])]
        rows.append(line)
    words = [_safe(board.label or board.job), board.data.name, board.classified and f"any_{board.classified}"]
    return Table(
        name="_".join([*filter(None, words), "summary"]),
        caption=f"{board.name}: {_ranking(board)}",
        columns=heads,
        rows=rows,
        note=_note(board, spread, tested),
        best=0 if board.ranked_by else None,
    )


def _ranking(board: Board) -> str:
    held = f"{board.columns[0].split} {board.noun}" if board.columns[0].split in ("test", "all") else ""
    if board.ranked_by == "validation":
        return f"ranked by {board.columns[0].metric} on validation {board.noun}, shown on {held} with 95 % intervals"
    if board.ranked_by == "shown":
        return f"ranked by {board.columns[0]}" + (", with 95 % intervals" if held else "")
    return "numbers of their reports, not ranked" if board.job else f"{board.columns[0]}, not ranked"


def _note(board: Board, spread: bool, tested: bool) -> str:
    parts = []
    if spread:
        parts.append("Values are means over seeds; their intervals hold the luck of seeds and of rows.")
    if tested:
        parts.append(
            f"minus #1: difference of {board.columns[0]} to the first row on shared resamples of groups, with its 95 % "
            f"interval, in which the spread over seeds is part where there are several; p is corrected for "
            f"{sum(row.against is not None for row in board.rows)} tests."
        )
    if not board.job:
        parts.append(f"best: chosen on validation {board.noun} by its own run; last: deepest layer.")
    if board.classified:
        parts.append("probe and SVM read a frozen network; each chose its own layer.")
    parts.append("train time: of fitting and scoring that row, where its run says so, else of the whole job.")
    return " ".join(parts)


def overviews(boards: Sequence[Board]) -> Iterator[Table]:
    """For each label judged on several data sets: one line a model, each data set in columns of its own."""
    for title in dict.fromkeys((board.job, board.label) for board in boards):
        some = [board for board in boards if (board.job, board.label) == title and not board.classified]
        if len(some) > 1:
            yield _overview(some)


def _overview(boards: Sequence[Board]) -> Table:
    lines: dict[tuple[str, str, int], dict[str, BoardRow]] = {}
    for board in boards:
        seen: Counter[tuple[str, str]] = Counter()
        for row in board.rows:
            who = (model_of_row(row) or "", row.picks[0].role or row.representation)
            seen[who] += 1
            lines.setdefault((*who, seen[who]), {})[board.data.name] = row
    heads = ["representation", "model"]
    for board in boards:
        heads += [f"{board.data.name}: layer", *(f"{board.data.name}: {column}" for column in board.columns)]
    rows: list[list[Cell]] = []
    for (model, representation, _), found in lines.items():
        line: list[Cell] = [representation, model or DASH]
        for board in boards:
            there = found.get(board.data.name)
            line.append(_layers(there) if there else DASH)
            line += [number_of(there.measures.get(column)) if there else None for column in board.columns]
        rows.append(line)
    what = boards[0].label or boards[0].job
    held = "; ".join(f"{board.data}, {count(len(board.data.runs), 'run')}" for board in boards)
    return Table(
        name=f"{_safe(what)}_by_data_summary",
        caption=f"{what}: {len(boards)} data sets side by side; numbers of different ones cannot be compared",
        columns=heads,
        rows=rows,
        note=f"{held}. Ordered as on {boards[0].data.name}.",
    )


def runs_table(boards: Sequence[Board], runs: Sequence[Run], links: Mapping[str, str] | None = None) -> Table:
    """Where each number comes from: one run a line, its name as Markdown where `links` has it by fingerprint."""
    held = [(board.data.name, {run.fingerprint for run in board.data.runs}) for board in boards]
    rows: list[list[Cell]] = []
    for run in runs:
        sets = dict.fromkeys(name for name, on in held if run.fingerprint in on)
        name = (links or {}).get(run.fingerprint, run.name)
        model = " ".join(filter(None, (run.model, run.weights[:SHORT]))) or DASH
        rows.append(
            [name, run.job, ", ".join(sets) or DASH, run.data[:SHORT], run.data_name or DASH, model, str(run.seed),
             run.fingerprint[:FINGERPRINT], run.place, run.tracked or DASH]
        )  # fmt: skip
    return Table(
        name="runs",
        caption="The runs, and where to find them",
        columns=["run", "job", "data set", "digest", "data", "model", "seed", "fingerprint", "OUTPUT", "MLflow run"],
        rows=rows,
        note="data set: runs of one letter judged the same rows, split by the same rule; digest: of rows and "
        "labels, or of the data where a run states none; model: backbone and digest of its weights.",
    )


def refused_table(refused: Sequence[Refusal]) -> Table:
    """What was named and could not be compared."""
    return Table(
        name="not_compared",
        caption="Runs that were named and are not on any leaderboard",
        columns=["run", "code", "why"],
        rows=[[refusal.key, refusal.code, refusal.message] for refusal in refused],
    )


def subject(row: BoardRow) -> str:
    """Model and representation, for people."""
    read = row.classifier and f"({row.classifier})"
    return " ".join(filter(None, (model_of_row(row), row.representation if row.kind != REPORTED else "", read)))


def model_of_row(row: BoardRow) -> str | None:
    """Backbone and digest of its weights, else the run's name; None for a baseline that no network is part of."""
    is_read = row.runs[0].classifier in UNREAD and row.representation not in UNSEEING  # by a network, as a rival
    if row.kind == "baseline" and not row.layers and not is_read:
        return None
    weights = list(dict.fromkeys(run.weights[:SHORT] for run in row.runs if run.weights))
    return " ".join(filter(None, (row.runs[0].model, _several(weights)))) or row.runs[0].name


def number_of(measure: Measure | None) -> Cell:
    """A measure as a table shows it; counts that a report states stay whole."""
    shown = estimate_of(measure)
    if isinstance(shown, float) and shown.is_integer() and measure is not None and measure.cells is None:
        return int(shown)
    return shown


def estimate_of(found: Measure | None) -> Estimate | float | None:
    """A number with its interval, where it has one."""
    if found is None or found.low is None or found.high is None:
        return found.value if found else None
    return Estimate(value=found.value, low=found.low, high=found.high)


def test_of(against: Comparison | None) -> list[Cell]:
    """A test in three cells: the difference, its p-value, the verdict."""
    if against is None:
        return [None, DASH, DASH]
    p = DASH if np.isnan(against.p) else "< 0.001" if against.p < 0.001 else f"{against.p:.3f}"
    return [against.difference, p, against.words]


def _several(words: Sequence[str], more: int = 0) -> str:
    """The first of some, and how many more."""
    rest = len(words) - 1 + more
    return f"{words[0]} +{rest}" if words and rest else "".join(words[:1])


def _layers(row: BoardRow) -> str:
    return ", ".join(map(str, row.layers)) or DASH


def count(number: int, what: str) -> str:
    """1 run, 2 runs."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _safe(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)
