"""An ablation as tables, Markdown and Parquet: every number beside the runs that it comes from."""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from xfm.core.metric import LEAKAGE, words_of
from xfm.core.report import DASH, Cell, Report, Table
from xfm.studies.ablation.table import TESTED, Ablation, AblationRow, is_leakage
from xfm.studies.compare.finished_run import Run
from xfm.studies.compare.report import columns_of, difference_columns, link, links_to, markdown_of
from xfm.studies.compare.row import Column
from xfm.studies.compare.tables import estimate_of, test_of

PUBLISHED = "published, different data"

# One line for each (row, metric).
SCHEMA = pa.schema(
    [
        ("row", pa.string()),
        ("position", pa.int32()),  # from 1, as asked for
        ("words", pa.map_(pa.string(), pa.string())),  # what the row is, by column
        ("metric", pa.string()),
        ("task", pa.string()),
        ("representations", pa.list_(pa.string())),
        ("label", pa.string()),
        ("value", pa.float64()),  # mean over seeds; null where the row does not have it
        ("sd", pa.float64()),  # over seeds, n - 1
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("values", pa.list_(pa.float64())),  # of each seed
        ("rows", pa.int64()),  # judged
        ("missing", pa.string()),  # why, where there is no value
        ("difference", pa.float64()),  # to `against`, accuracy only
        ("difference_low", pa.float64()),
        ("difference_high", pa.float64()),
        ("p", pa.float64()),  # two-sided, Holm-corrected
        ("against", pa.string()),
        ("published", pa.float64()),  # by others, on different data
        ("seeds", pa.list_(pa.int64())),
        ("fingerprints", pa.list_(pa.string())),
        ("outputs", pa.list_(pa.string())),
        ("mlflow", pa.list_(pa.string())),
    ]
)


def name_of(column: Column) -> str:
    """A column's heading."""
    task, name = column.metric
    return task.replace(LEAKAGE, f"{LEAKAGE} AUROC", 1) if is_leakage(column) else words_of(name)


def summary_table(table: Ablation, runs: Mapping[str, str] | None = None) -> Table:
    """The table itself: means over seeds with their standard deviation; `runs` is Markdown that leads to the runs of
    each row, by title."""
    marks = _marks(table)
    words = list(dict.fromkeys(word for row in table.rows for word in row.asked.words))
    heads = ["row", *words, "seeds", *map(name_of, table.columns)]
    heads += [f"accuracy minus {table.against}", "p (Holm)", f"against {table.against}"] if table.against else []
    heads += ["runs"] if runs else []
    lines: list[list[Cell]] = []
    for row in table.rows:
        line: list[Cell] = [row.asked.title, *(row.asked.words.get(word, DASH) for word in words)]
        line.append(str(len(row.asked.runs)))
        line += [str(row.measures.get(column) or f"- [{marks[row.reasons[column]]}]") for column in table.columns]
        line += test_of(row.against) if table.against else []
        line += [runs.get(row.asked.title, DASH)] if runs else []
        lines.append(line)
    return Table(
        name="ablation_summary",
        caption=f"{table.label} on {table.test_rows}, mean over seeds and its standard deviation",
        columns=heads,
        rows=lines,
        note=_note(table, marks),
    )


def interval_table(table: Ablation) -> Table:
    """Every number with its interval."""
    lines: list[list[Cell]] = [
        [row.asked.title, *(estimate_of(row.measures.get(column)) for column in table.columns)] for row in table.rows
    ]
    return Table(
        name="ablation_intervals",
        caption=f"{table.label}: mean over seeds, and the 95 % interval of a single seed",
        columns=["row", *map(name_of, table.columns)],
        rows=lines,
        note="The intervals hold the luck of the test rows and that of a seed: the resamples of all seeds together. "
        "That of the mean over seeds is narrower.",
    )


def published_table(table: Ablation) -> Table | None:
    """What others state beside what was found; None where nobody does."""
    rows = [row for row in table.rows if row.asked.published]
    names = list(dict.fromkeys(name for row in rows for name in row.asked.published))
    if not rows:
        return None
    columns = {column.metric.name: column for column in table.columns if not column.metric.task}
    lines: list[list[Cell]] = []
    for row in rows:
        line: list[Cell] = [row.asked.title]
        for name in names:
            measure = row.measures.get(columns[name]) if name in columns else None
            line += [row.asked.published.get(name), measure.value if measure else None]
        lines.append(line)
    heads = [head for name in names for head in (f"{words_of(name)}, {PUBLISHED}", f"{words_of(name)}, here")]
    return Table(
        name="ablation_published_summary",
        caption="Published numbers beside these: measured on different data, only their order may be compared",
        columns=["row", *heads],
        rows=lines,
    )


def members_table(table: Ablation, links: Mapping[str, str] | None = None) -> Table:
    """Where every number comes from: one line a row and seed; `links` as for `runs_table`."""
    lines: list[list[Cell]] = []
    for row in table.rows:
        for number, run in enumerate(row.asked.runs):
            measure = row.measures.get(TESTED)
            value = measure.values[number] if measure else None
            page = (links or {}).get(run.fingerprint, run.name)
            lines.append([row.asked.title, str(run.seed), value, page, run.tracked or DASH, run.fingerprint[:12]])
    return Table(
        name="ablation_runs",
        caption="The run behind every number",
        columns=["row", "seed", "accuracy", "OUTPUT", "MLflow run", "fingerprint"],
        rows=lines,
        note="Every number of the table is out of scores.parquet of these OUTPUTs.",
    )


def ablation_markdown(report: Report, table: Ablation, pages: Mapping[str, str]) -> str:
    """The report with its table in Markdown, every row linked to its runs' `pages`, as by `links_to`, and to MLflow."""
    runs = {row.asked.title: ", ".join(_linked(run, pages) for run in row.asked.runs) or DASH for row in table.rows}
    links = links_to([run for row in table.rows for run in row.asked.runs], pages)
    shown = [summary_table(table, runs), interval_table(table), published_table(table), members_table(table, links)]
    return markdown_of(report, [each for each in shown if each is not None])


def ablation_table(table: Ablation) -> pa.Table:
    """All numbers as rows of SCHEMA."""
    lines = [line for number, row in enumerate(table.rows, 1) for line in _lines(table, row, number)]
    return pa.Table.from_pylist(lines, schema=SCHEMA)


def _lines(table: Ablation, row: AblationRow, number: int) -> Iterator[dict[str, Any]]:
    common = columns_of(row.asked.runs) | {
        "row": row.asked.title,
        "position": number,
        "words": list(row.asked.words.items()),
        "representations": [pick.name for pick in row.row.picks] if row.row else [],
        "against": table.against,
    }
    for column in table.columns:
        leaks = is_leakage(column)
        line = common | {
            "metric": column.metric.name,
            "task": LEAKAGE if leaks else (row.row.runs[0].classifier if row.row else None),
            "label": column.metric.task.removeprefix(f"{LEAKAGE} of ") if leaks else table.label,
            "missing": row.reasons.get(column),
            "published": None if leaks else row.asked.published.get(column.metric.name),
        }
        if (measure := row.measures.get(column)) is not None:
            line |= {name: getattr(measure, name) for name in ("value", "sd", "low", "high", "values")}
            line["rows"] = measure.cells
        yield line | (difference_columns(row.against) if column == TESTED else {})


def _linked(run: Run, pages: Mapping[str, str]) -> str:
    page = link(f"seed {run.seed}", pages[run.fingerprint]) if run.fingerprint in pages else f"seed {run.seed}"
    if not run.tracked:
        return page
    return f"{page} ({link('MLflow', run.tracked) if '://' in run.tracked else f'MLflow run {run.tracked}'})"


def _marks(table: Ablation) -> dict[str, int]:
    """A number for every reason why something is missing, in the order of the table."""
    found = dict.fromkeys(reason for row in table.rows for reason in row.reasons.values())
    return {reason: number for number, reason in enumerate(found, 1)}


def _note(table: Ablation, marks: Mapping[str, int]) -> str:
    parts = [f"[{number}] {reason}." for reason, number in marks.items()]
    if table.against:
        tests = sum(row.against is not None for row in table.rows)
        parts.append(
            f"minus {table.against}: paired difference on shared resamples of test rows, with its 95 % interval, in "
            f"which the spread over seeds is part where there are several; p is corrected for {tests} tests."
        )
    if any(map(is_leakage, table.columns)):
        parts.append(
            "leakage: a fresh logistic regression on frozen features, on held-out groups; 0.5 tells nothing, what lies "
            "below it is noise, and few groups make much of it."
        )
    return " ".join(parts)
