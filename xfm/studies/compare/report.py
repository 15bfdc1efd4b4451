"""A comparison as a page (what leads, by how much and beyond which noise), as Markdown and as a Parquet file."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from xfm.core.ledger import Refusal
from xfm.core.report import Report, Table, markdown_table
from xfm.judging.comparison import BEATS, EVEN, UNTESTABLE, WORSE, Comparison, few_groups
from xfm.studies.compare.boards import Board
from xfm.studies.compare.finished_run import Run
from xfm.studies.compare.row import Column, Measure
from xfm.studies.compare.tables import board_table, count, overviews, refused_table, runs_table, subject

# One line for each (row of a leaderboard, metric).
SCHEMA = pa.schema(
    [
        ("data", pa.string()),  # letter of the data set; numbers of different letters are not comparable
        ("cells_digests", pa.list_(pa.string())),  # of cells, labels and split, one a run
        ("label", pa.string()),
        ("rank", pa.int32()),  # from 1, by the primary metric on validation cells where it has one; null: not ranked
        ("model", pa.string()),
        ("weights", pa.list_(pa.string())),  # SHA-256, one a run; empty where a run has none
        ("representations", pa.list_(pa.string())),  # one a run
        ("role", pa.string()),  # best, last, random; empty for a representation that was named
        ("kind", pa.string()),
        ("layers", pa.list_(pa.int32())),
        ("task", pa.string()),
        ("metric", pa.string()),
        ("split", pa.string()),
        ("value", pa.float64()),  # mean over seeds
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("sd", pa.float64()),  # over seeds, n - 1
        ("values", pa.list_(pa.float64())),  # of each seed
        ("cells", pa.int64()),
        ("groups", pa.int64()),
        ("validation", pa.float64()),  # what it was ranked by; primary metric only
        ("difference", pa.float64()),  # to the first row, primary metric only
        ("difference_low", pa.float64()),
        ("difference_high", pa.float64()),
        ("p", pa.float64()),  # two-sided, Holm-corrected within the leaderboard
        ("verdict", pa.string()),  # beats, worse, not told apart, or not testable and what it takes
        ("seeds", pa.list_(pa.int64())),
        ("seconds", pa.float64()),
        ("fingerprints", pa.list_(pa.string())),
        ("runs", pa.list_(pa.string())),
        ("outputs", pa.list_(pa.string())),
        ("mlflow", pa.list_(pa.string())),
        ("shared_with", pa.list_(pa.string())),  # runs whose baseline is the very same
    ]
)


def compare_report(
    boards: Sequence[Board],
    runs: Sequence[Run],
    refused: Sequence[Refusal],
    notes: Sequence[str],
    versions: Mapping[str, str],
) -> Report:
    """What a `compare` found. Its first board makes the headline; `notes` are what gathering has to say."""
    tables = [*overviews(boards), *map(board_table, boards), runs_table(boards, runs)]
    return Report(
        title=f"Leaderboard of {count(len(runs), 'run')}",
        job="compare",
        headline=_headline(boards[0]),
        numbers={
            "runs": len(runs),
            "rows": sum(len(board.rows) for board in boards),
            "data sets": len({board.data.name for board in boards}),
            "runs not compared": len(refused),
        },
        tables=[*tables, *([refused_table(refused)] if refused else [])],
        warnings=[*notes, *dict.fromkeys(caution for board in boards for caution in _cautions(board))],
        provenance={
            "fingerprints": {run.name: run.fingerprint for run in runs},
            "data": {board.data.name: f"{board.data}, sha256 {board.data.runs[0].data}" for board in boards},
            "versions": dict(versions),
        },
        refused=Counter(refusal.code for refusal in refused),
    )


def _headline(board: Board) -> str:
    """Words only where a test supports them."""
    if not board.ranked_by:
        what = f"Numbers that reports of {board.job} state" if board.job else f"{board.columns[0]} on {board.name}"
        return f"{what}, {count(len(board.rows), 'row')} side by side, not ranked."
    first, column = board.rows[0], board.columns[0]
    leader = f"{subject(first)} leads {count(len(board.rows), 'row')} on {board.name}"
    text = f"{leader} with {_said(first.measures.get(column), column, board.noun)}"
    tests = [row.against for row in board.rows if row.against is not None]
    if not tests:
        return f"{text}; no other row could be tested against it."
    # A row is set against the first, so that where it is worse the first one beats it.
    words = {WORSE: "beats {} of {n} tested rows beyond noise", EVEN: "is not told apart from {}",
             BEATS: f"does worse than {{}} on these {board.noun}"}  # fmt: skip
    count_of = Counter(test.verdict for test in tests)
    said = [text.format(count_of[verdict], n=len(tests)) for verdict, text in words.items() if count_of[verdict]]
    for needs in dict.fromkeys(test.needs for test in tests if test.verdict == UNTESTABLE):
        said.append(f"is not testable against {sum(test.needs == needs for test in tests)}, which takes {needs}")
    return f"{text}; it {', '.join(said[:-1])}{' and ' if len(said) > 1 else ''}{said[-1]}."


def _said(measure: Measure | None, column: Column, noun: str) -> str:
    if measure is None:
        return f"no {column}"
    where = f" on {column.split} {noun}" if column.split in ("test", "all") else ""
    ends = f" [{measure.low:.3f}, {measure.high:.3f}]" if measure.low is not None and measure.high is not None else ""
    return f"{column.metric if where else column} {measure.value:.3f}{ends}{where}"


def _cautions(board: Board) -> Iterator[str]:
    name = board.name
    if not board.ranked_by:
        several = "numbers of reports have no draws and no natural order; --metrics NAME ranks by one of them"
        unknown = f"which way {board.columns[0].metric.name} is better is not known, so rows are not ranked"
        yield f"{name}: {several if board.job and len(board.columns) > 1 else unknown}."
        return
    if board.ranked_by == "shown" and not board.job:
        yield (
            f"{name}: no validation scores, so rows are ranked by the number shown: the first of {len(board.rows)} is "
            f"a maximum and looks better than it would on other {board.noun}."
        )
    untested = sum(row.against is None for row in board.rows[1:])
    if untested and not board.job:
        yield (
            f"{name}: {untested} of {len(board.rows) - 1} rows share no split and resamples with the first, or "
            "have no draws: they are not tested against it."
        )
    tests = [row.against for row in board.rows if row.against is not None]
    yield from (f"{name}: {few}" for few in {few_groups(test.groups) for test in tests} if few)
    if any(test.seeds == 1 for test in tests):
        yield (
            f"{name}: of a training with one seed it is not known how much its luck matters: its interval is that of "
            "the rows alone, and whether its recipe is better is not testable. Train each from several --seed."
        )
    if len({frozenset(run.split for run in row.runs) for row in board.rows}) > 1:
        sets = sorted({", ".join(map(str, row.seeds)) for row in board.rows})
        seeds = f"different seeds ({'; '.join(sets)}), so on " if len(sets) > 1 else ""
        yield f"{name}: rows rest on {seeds}different splits; give all the same."


def leaderboard_table(boards: Sequence[Board]) -> pa.Table:
    """All leaderboards as rows of SCHEMA."""
    return pa.Table.from_pylist([line for board in boards for line in _lines(board)], schema=SCHEMA)


def _lines(board: Board) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(board.rows, 1):
        common = columns_of(row.runs) | {
            "data": board.data.name,
            "cells_digests": [run.data for run in row.runs],
            "label": board.label,
            "rank": number if board.ranked_by else None,
            "model": row.runs[0].model,
            "weights": [run.weights for run in row.runs],
            "representations": [pick.name for pick in row.picks],
            "role": row.picks[0].role,
            "kind": row.kind,
            "layers": row.layers,
            "seconds": row.seconds,
            "runs": [run.name for run in row.runs],
            "shared_with": row.shared_with,
        }
        for column, measure in row.measures.items():
            own = {name: getattr(measure, name) for name in ("value", "low", "high", "sd", "values", "cells", "groups")}
            task = column.metric.task or row.runs[0].classifier
            own |= {"task": task, "metric": column.metric.name, "split": column.split}
            if column == board.columns[0]:
                own |= {"validation": row.rank_by} | difference_columns(row.against)
            yield common | own


def columns_of(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Where the numbers of a line come from."""
    return {
        "seeds": [run.seed for run in runs],
        "fingerprints": [run.fingerprint for run in runs],
        "outputs": [run.place for run in runs],
        "mlflow": [run.tracked for run in runs],
    }


def difference_columns(test: Comparison | None) -> dict[str, Any]:
    """The columns of a line that was tested against another one."""
    if test is None:
        return {}
    ends = {"difference_low": test.difference.low, "difference_high": test.difference.high}
    return {"difference": test.difference.value, **ends, "p": test.p, "verdict": test.words}


def leaderboard_markdown(report: Report, boards: Sequence[Board], runs: Sequence[Run], pages: Mapping[str, str]) -> str:
    """The report of these boards in Markdown, each run linked to its page as by `links_to`."""
    linked = runs_table(boards, runs, links_to(runs, pages))
    return markdown_of(report, [linked if table.name == linked.name else table for table in report.tables])


def links_to(runs: Sequence[Run], pages: Mapping[str, str]) -> dict[str, str]:
    """{fingerprint: the run's name as a link}, of the runs whose fingerprint `pages` has, relative to OUTPUT or as an
    address."""
    return {run.fingerprint: link(run.name, pages[run.fingerprint]) for run in runs if run.fingerprint in pages}


def markdown_of(report: Report, tables: Sequence[Table]) -> str:
    """A report in Markdown, with these tables in place of its own."""
    parts = [f"# {plain(report.title)}", plain(report.headline)]
    for table in tables:
        parts += [f"## {plain(table.caption)}", markdown_table(table).rstrip()]
        parts += [plain(table.notes)] if table.notes else []
    if report.warnings:
        parts += ["## Before you believe it", "\n".join(f"- {plain(warning)}" for warning in report.warnings)]
    return "\n\n".join(parts) + "\n"


def link(text: str, address: str) -> str:
    """A link in Markdown. Brackets in names and blanks in paths would end a link early."""
    quoted = address.replace(" ", "%20").replace("(", "%28").replace(")", "%29")
    return f"[{text.replace('[', '(').replace(']', ')')}]({quoted})"


def plain(text: str) -> str:
    """Text in Markdown. Names come from data: no markup in running text."""
    return "".join(f"\\{letter}" if letter in "\\`*_<>[]" else letter for letter in text)
