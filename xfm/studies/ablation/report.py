"""The page of an ablation: the table first, then its picture, what others published, and the run behind each number."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from xfm.core.ledger import Refusal
from xfm.core.report import Figure, Report, Table
from xfm.judging.comparison import BEATS, EVEN, UNTESTABLE, WORSE
from xfm.plots.dots import Dot, draw_leaderboard
from xfm.plots.tradeoff import TradeoffPoint, draw_tradeoff
from xfm.studies.ablation.files import interval_table, members_table, name_of, published_table, summary_table
from xfm.studies.ablation.shown import number_of
from xfm.studies.ablation.table import TESTED, Ablation, AblationRow, is_leakage
from xfm.studies.compare.row import Column
from xfm.studies.compare.tables import estimate_of, refused_table

VERDICTS = {BEATS: "better", WORSE: "worse", EVEN: EVEN, UNTESTABLE: UNTESTABLE}  # in a sentence
FEW = 3  # rows that a headline names
ALONE = "other rows"  # of a trade-off: those of no series


def ablation_report(
    table: Ablation,
    title: str,
    notes: Sequence[str],
    refused: Sequence[Refusal],
    versions: Mapping[str, str],
    more: Sequence[Table] = (),
) -> Report:
    """What the members of a comparison found: `notes` before everything else, `more` (leaderboards) below."""
    rows = [row for row in table.rows if row.row is not None]
    runs = {run.fingerprint: run for row in rows for run in row.asked.runs}
    tables = [summary_table(table), published_table(table), interval_table(table), members_table(table)]
    return Report(
        title=title,
        job="compare",
        headline=_headline(table, rows),
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
        refused=Counter(refusal.code for refusal in refused),
    )


def draw_ablation(table: Ablation, folder: Path, curve: str | None = None) -> list[Figure]:
    """Accuracy of every row, in the table's order; and accuracy against what leaks, where that was measured. `curve` is
    the rows' word, a number, in whose order points of one series are joined; None joins none."""
    dots = [
        Dot(row.asked.title, row.row.kind, found.value, found.low, found.high, found.values)
        for row in table.rows
        if row.row and (found := row.measures.get(TESTED)) is not None
    ]
    if not dots:
        return []
    against = f" The paired differences to {table.against} are in the table." if table.against else ""
    figures = [
        draw_leaderboard(
            folder, "ablation", dots, metric="accuracy", title=f"{table.label}: accuracy on test rows",
            caption=f"{table.label}: accuracy with 95 % intervals, in the order of the table; ticks: single seeds. All "
            f"rows share their test rows, so intervals that overlap may still differ.{against}",
            alt=f"Dots with whiskers, one for each of {len(dots)} rows.",
        )
    ]  # fmt: skip
    for number, column in enumerate(filter(is_leakage, table.columns)):
        name = "tradeoff" if number == 0 else f"tradeoff_{number + 1}"
        figures.append(_tradeoff(table, column, name, folder, curve))
    return figures


def _tradeoff(table: Ablation, column: Column, name: str, folder: Path, curve: str | None) -> Figure:
    """Accuracy against one column of leakage. Rows of one series are joined in the order of the curve's numbers."""
    points = []
    for row in table.rows:
        asked, score, leakage = row.asked, estimate_of(row.measures.get(TESTED)), estimate_of(row.measures.get(column))
        if score is not None and leakage is not None:
            strength = number_of(asked.words.get(curve or "", "")) if asked.series else None
            points.append(TradeoffPoint(asked.title, score, leakage, strength, asked.series or ALONE))
    return draw_tradeoff(
        folder, points, name=name, score=f"{table.label} accuracy (test)", leakage=name_of(column),
        title=f"What is kept of {table.label}, and what leaks",
        caption=f"{table.label} accuracy against the AUROC of a fresh probe, {column.metric.task}, over groups that it "
        "was not fitted on (the networks were trained with them), with 95 % intervals. Dashed: chance; what lies below "
        "it is noise, and few groups make much of it. "
        + (f"Lines join rows of one series in the order of {curve}." if curve else ""),
    )  # fmt: skip


def _headline(table: Ablation, rows: Sequence[AblationRow]) -> str:
    """Words only where a test supports them, of the rows that have a number."""
    if not table.against:
        return f"{len(rows)} rows on {table.test_rows}, none named to test the others against."
    tests = {row.asked.title: row.against for row in rows if row.against is not None}
    found = {word: [title for title, test in tests.items() if test.verdict == word] for word in VERDICTS}
    first = next((row for row in rows if row.asked.title == table.against), None)
    if first is None:
        return f"{table.against} has no number, so that none of {len(rows)} rows was tested against it."
    measure = first.measures.get(TESTED)
    own = f"{table.against} tells {table.label} with accuracy {measure}" if measure else table.against
    if not tests:
        return f"{own}; no other row could be tested against it."
    said = [_named(VERDICTS[word], titles) for word, titles in found.items() if titles or word != UNTESTABLE]
    return f"{own}. Of {len(tests)} rows set against it, {', '.join(said[:-1])}, and {said[-1]}."


def _named(what: str, titles: Sequence[str]) -> str:
    """How many, and which where they are few."""
    few = "; ".join(titles) if len(titles) <= FEW else ""
    return f"{len(titles)} {'is' if len(titles) == 1 else 'are'} {what}" + (f" ({few})" if few else "")
