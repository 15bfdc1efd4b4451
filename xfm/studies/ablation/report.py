"""The page of an ablation: the table first, then its picture, what others published, and the run behind each number."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from xfm.core.ledger import Refusal
from xfm.core.metric import LEAKAGE
from xfm.core.report import Estimate, Figure, Report, Table
from xfm.plots.dots import Dot, draw_leaderboard
from xfm.plots.tradeoff import TradeoffPoint, draw_tradeoff
from xfm.studies.ablation.files import (
    headline,
    interval_table,
    members_table,
    name_of,
    published_table,
    summary_table,
)
from xfm.studies.ablation.shown import number_of
from xfm.studies.ablation.table import TESTED, Ablation
from xfm.studies.compare.row import Column, Measure
from xfm.studies.compare.tables import refused_table

ALONE = "other rows"  # of a trade-off: those of no series


def ablation_report(
    table: Ablation,
    title: str,
    notes: Sequence[str],
    refused: Sequence[Refusal],
    versions: Mapping[str, str],
    more: Sequence[Table] = (),
) -> Report:
    """What the members of a comparison found.

    Args:
        table: with all rows.
        title: of the page.
        notes: sentences for the reader, before everything else.
        refused: members that came to nothing.
        versions: of what ran.
        more: leaderboards, below.
    """
    rows = [row for row in table.rows if row.row is not None]
    runs = {run.fingerprint: run for row in rows for run in row.asked.runs}
    counts: dict[str, int] = {}
    for refusal in refused:
        counts[refusal.code] = counts.get(refusal.code, 0) + 1
    tables = [summary_table(table), published_table(table), interval_table(table), members_table(table)]
    return Report(
        title=title,
        job="compare",
        headline=headline(table, rows),
        numbers={"rows": len(rows), "runs": len(runs), "members that failed": len(refused)},
        tables=[
            *(each for each in tables if each is not None),
            *([refused_table(refused)] if refused else []),
            # On a terminal the table alone is shown: leaderboards are for the page.
            *(each.model_copy(update={"name": each.name.removesuffix("_summary")}) for each in more),
        ],
        warnings=[*notes, *table.notes],
        provenance={
            "fingerprints": {run.name: fingerprint for fingerprint, run in runs.items()},
            "versions": dict(versions),
        },
        refused=counts,
    )


def draw_ablation(table: Ablation, folder: Path, curve: str | None = None) -> list[Figure]:
    """Accuracy of every row, in the table's order; and accuracy against what leaks, where that was measured.

    Args:
        table: what was found.
        folder: OUTPUT.
        curve: the rows' word, a number, in whose order points of one series are joined; None joins none.
    """
    shown = [(row, row.measures[TESTED]) for row in table.rows if TESTED in row.measures]
    if not shown:
        return []
    dots = [
        Dot(row.asked.title, row.row.kind if row.row else "layer", found.value, found.low,
            found.high, found.values)
        for row, found in shown
    ]  # fmt: skip
    against = f" The paired differences to {table.against} are in the table." if table.against else ""
    figures = [
        draw_leaderboard(
            folder, "ablation", dots, metric="accuracy", title=f"{table.label}: accuracy on test rows",
            caption=f"{table.label}: accuracy with 95 % intervals, in the order of the table; ticks: single seeds. All "
            f"rows share their test rows, so intervals that overlap may still differ.{against}",
            alt=f"Dots with whiskers, one for each of {len(dots)} rows.",
        )
    ]  # fmt: skip
    for number, column in enumerate(column for column in table.columns if column.metric.task.startswith(LEAKAGE)):
        name = "tradeoff" if number == 0 else f"tradeoff_{number + 1}"
        figures.append(_tradeoff(table, column, name, folder, curve))
    return figures


def _tradeoff(table: Ablation, column: Column, name: str, folder: Path, curve: str | None) -> Figure:
    """Accuracy against one column of leakage. Rows of one series are joined in the order of the curve's numbers."""
    points = [
        TradeoffPoint(
            row.asked.title, _shown(row.measures[TESTED]), _shown(row.measures[column]),
            number_of(row.asked.words.get(curve or "", "")) if row.asked.series else None, row.asked.series or ALONE,
        )
        for row in table.rows
        if TESTED in row.measures and column in row.measures
    ]  # fmt: skip
    return draw_tradeoff(
        folder, points, name=name, score=f"{table.label} accuracy (test)", leakage=name_of(column),
        title=f"What is kept of {table.label}, and what leaks",
        caption=f"{table.label} accuracy against the AUROC of a fresh probe, {column.metric.task}, over groups that it "
        "never saw, with 95 % intervals. Dashed: chance; what lies below it is noise, and few groups make much of it. "
        + (f"Lines join rows of one series in the order of {curve}." if curve else ""),
    )  # fmt: skip


def _shown(measure: Measure) -> Estimate | float:
    if measure.low is None or measure.high is None:
        return measure.value
    return Estimate(value=measure.value, low=measure.low, high=measure.high)
