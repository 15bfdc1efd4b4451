"""The page of a comparison: what leads, by how much and beyond which noise, then every leaderboard and every run."""

from collections.abc import Iterator, Mapping, Sequence

from xfm.core.ledger import Refusal
from xfm.core.report import Report
from xfm.studies.compare.boards import Board
from xfm.studies.compare.finished_run import Run
from xfm.studies.compare.row import Column, Measure
from xfm.studies.compare.tables import board_table, count, overviews, refused_table, runs_table, subject

ALPHA = 0.05


def compare_report(
    boards: Sequence[Board],
    runs: Sequence[Run],
    refused: Sequence[Refusal],
    notes: Sequence[str],
    versions: Mapping[str, str],
) -> Report:
    """What a `compare` found.

    Args:
        boards: in the order of the page; the first one makes the headline.
        runs: all that were compared.
        refused: those that were not, and why.
        notes: what gathering has to say, e.g. which run was given twice.
        versions: of what ran.
    """
    counts: dict[str, int] = {}
    for refusal in refused:
        counts[refusal.code] = counts.get(refusal.code, 0) + 1
    data = list(dict.fromkeys(board.data.name for board in boards))
    tables = [*overviews(boards), *map(board_table, boards), runs_table(boards, runs)]
    return Report(
        title=f"Leaderboard of {count(len(runs), 'run')}",
        job="compare",
        headline=_headline(boards[0]),
        numbers={
            "runs": len(runs),
            "rows": sum(len(board.rows) for board in boards),
            "data sets": len(data),
            "runs not compared": len(refused),
        },
        tables=[*tables, *([refused_table(refused)] if refused else [])],
        warnings=[*notes, *dict.fromkeys(caution for board in boards for caution in _cautions(board))],
        provenance={
            "fingerprints": {run.name: run.fingerprint for run in runs},
            "data": {board.data.name: f"{board.data}, sha256 {board.data.runs[0].data}" for board in boards},
            "versions": dict(versions),
        },
        refused=counts,
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
    best = first.measures[column].value
    apart = [column.cost(best + test.value) > column.cost(best) for test in tests if test.p < ALPHA]
    worse, better, even = sum(apart), len(apart) - sum(apart), len(tests) - len(apart)
    said = [f"it beats {worse} of {len(tests)} tested rows beyond noise"] if worse else []
    said += [f"is not told apart from {even}"] if even else []
    said += [f"does worse than {better} on these {board.noun}"] if better else []
    joined = ", ".join(said[:-1]) + " and " + said[-1] if len(said) > 1 else said[0]
    return f"{text}; {joined if joined.startswith('it ') else f'it {joined}'}."


def _said(measure: Measure | None, column: Column, noun: str) -> str:
    if measure is None:
        return f"no {column}"
    where = {"test": f" on test {noun}", "all": f" on all {noun}"}.get(column.split, "")
    ends = f" [{measure.low:.3f}, {measure.high:.3f}]" if measure.low is not None and measure.high is not None else ""
    return f"{column.metric if where else column} {measure.value:.3f}{ends}{where}"


def _cautions(board: Board) -> Iterator[str]:
    name = board.name
    if not board.ranked_by:
        if board.job and len(board.columns) > 1:
            yield f"{name}: numbers of reports have no draws and no natural order; --metrics NAME ranks by one of them."
        else:
            yield f"{name}: which way {board.columns[0].metric.name} is better is not known, so rows are not ranked."
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
    if tests and (coarse := max(test.finest for test in tests) * len(tests)) >= ALPHA:
        yield (
            f"{name}: {len(tests)} tests on so few resamples cannot give a corrected p below {coarse:.2f}, so no "
            "difference can be told from noise: compare fewer rows, or evaluate with more --bootstrap."
        )
    if len({frozenset(run.split for run in row.runs) for row in board.rows}) > 1:
        sets = sorted({", ".join(map(str, row.seeds)) for row in board.rows})
        seeds = f"different seeds ({'; '.join(sets)}), so on " if len(sets) > 1 else ""
        yield f"{name}: rows rest on {seeds}different splits; give all the same."
