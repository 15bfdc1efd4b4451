"""A comparison as files for people and for programs: leaderboard.md and leaderboard.parquet."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from xfm.core.report import Report, markdown_table
from xfm.studies.compare.boards import Board
from xfm.studies.compare.finished_run import Run
from xfm.studies.compare.tables import runs_table

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
        ("seeds", pa.list_(pa.int64())),
        ("seconds", pa.float64()),
        ("fingerprints", pa.list_(pa.string())),
        ("runs", pa.list_(pa.string())),
        ("outputs", pa.list_(pa.string())),
        ("mlflow", pa.list_(pa.string())),
        ("shared_with", pa.list_(pa.string())),  # runs whose baseline is the very same
    ]
)


def leaderboard_table(boards: Sequence[Board]) -> pa.Table:
    """All leaderboards as rows of SCHEMA."""
    return pa.Table.from_pylist([line for board in boards for line in _lines(board)], schema=SCHEMA)


def _lines(board: Board) -> list[dict[str, Any]]:
    lines = []
    for number, row in enumerate(board.rows, 1):
        common = {
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
            "seeds": row.seeds,
            "seconds": row.seconds,
            "fingerprints": [run.fingerprint for run in row.runs],
            "runs": [run.name for run in row.runs],
            "outputs": [run.place for run in row.runs],
            "mlflow": [run.tracked for run in row.runs],
            "shared_with": row.shared_with,
        }
        for column, measure in row.measures.items():
            own = {name: getattr(measure, name) for name in ("value", "low", "high", "sd", "values", "cells", "groups")}
            own |= {
                "task": column.metric.task or row.runs[0].classifier,
                "metric": column.metric.name,
                "split": column.split,
            }
            if column == board.columns[0]:
                own["validation"] = row.rank_by
                if row.against is not None:
                    test = row.against
                    own |= {"difference": test.value, "difference_low": test.low, "difference_high": test.high}
                    own["p"] = test.p
            lines.append(common | own)
    return lines


def leaderboard_markdown(report: Report, boards: Sequence[Board], runs: Sequence[Run], links: Mapping[str, str]) -> str:
    """The report in Markdown, its runs linked.

    Args:
        report: of these boards.
        boards, runs: as for `compare_report`.
        links: where a run's page lies, by fingerprint; relative to OUTPUT or an address.
    """
    named = {run.fingerprint: link(run.name, links[run.fingerprint]) for run in runs if run.fingerprint in links}
    parts = [f"# {plain(report.title)}", plain(report.headline)]
    for table in report.tables:
        shown = runs_table(boards, runs, named) if table.name == "runs" else table
        parts += [f"## {plain(shown.caption)}", markdown_table(shown).rstrip()]
        parts += [plain(shown.note)] if shown.note else []
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
