"""A comparison from OUTPUTs to leaderboards: what it compares and what it leaves behind. It reads and sorts: no Ray."""

import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from xfm.core.errors import Refused
from xfm.core.report import Figure, text_table
from xfm.engine.job import is_local, versions
from xfm.engine.session import OpenJob, open_job, print_plan
from xfm.plots.dots import Dot, draw_leaderboard
from xfm.studies.compare.boards import Board, compare
from xfm.studies.compare.config import Leaderboards
from xfm.studies.compare.finished_run import Run
from xfm.studies.compare.gather import Gathered, gather
from xfm.studies.compare.report import compare_report, leaderboard_markdown, leaderboard_table
from xfm.studies.compare.tables import board_table, runs_table, subject
from xfm.track.lineage import FEW_FILES


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a job is about to write."""

    gathered: Gathered  # runs, and what was not usable
    boards: Sequence[Board]  # one for each label and data set
    run: dict[str, Any]  # content of run.json


def run_comparison(config: Leaderboards) -> int:
    """Reads, ranks, reports; returns the exit code."""
    plan = plan_comparison(config)
    if config.dry_run:
        return print_plan(describe(plan))
    with open_job(config, plan.run, joint=True) as job:
        return write_comparison(plan, job)


def plan_comparison(config: Leaderboards) -> Comparison:
    """Reads the runs and ranks them.

    Raises:
        Refused: nothing to compare, or things that cannot be compared.
        EnvironmentProblem: a store that cannot be read.
    """
    found = gather(config.runs, config.query, config.metrics, config.output)
    by_data = config.columns == "data"
    boards = compare(found.runs, config.metrics, config.labels, config.representations, is_by_data=by_data)
    if not boards:
        raise Refused("NOTHING_TO_COMPARE", f"{len(found.runs)} runs have none of --metrics {','.join(config.metrics)} "
                      f"for --representations {','.join(config.representations)}. Try --metrics all")  # fmt: skip
    # The data of a comparison are the runs it compares.
    data = {"files": {run.place: run.fingerprint for run in found.runs}}
    return Comparison(found, boards, run_of(config, data, {run.data_name for run in found.runs}))


def run_of(config: Leaderboards, data: Mapping[str, Any], names: Set[str]) -> dict[str, Any]:
    """The content of run.json; `names` are those of the data in a word."""
    return {
        "job": "compare",
        "recipe": {"job": "compare", "config": config.recipe(), "data": data},
        "settings": config.model_dump(mode="json"),
        "origin": {"data_name": next(iter(names)) if len(names) == 1 else "several"},
        "versions": versions(),
    }


def describe(plan: Comparison) -> str:
    """What `--dry-run` prints."""
    lines = [text_table(runs_table(plan.boards, plan.gathered.runs)), ""]
    for board in plan.boards:
        columns = ", ".join(map(str, board.columns))
        lines.append(f"leaderboard   {board.name}: {len(board.rows)} rows of {columns}")
    lines += [f"not compared  {refusal.key}: {refusal.code}, {refusal.message}" for refusal in plan.gathered.refused]
    lines += [f"note          {note}" for note in plan.gathered.notes]
    return "\n".join(lines)


def write_comparison(plan: Comparison, job: OpenJob) -> int:
    """Leaderboard, page and records; returns the exit code."""
    runs, refused = plan.gathered.runs, plan.gathered.refused
    report = compare_report(plan.boards, runs, refused, plan.gathered.notes, plan.run["versions"])
    pages = {run.fingerprint: page_of(run, job.output.uri) for run in runs}
    job.publish("leaderboard.md", leaderboard_markdown(report, plan.boards, runs, pages).encode())
    job.publish_table("leaderboard.parquet", leaderboard_table(plan.boards))
    track_boards(plan.boards, job)
    if len(runs) > FEW_FILES:  # fewer are in the records already, as the files of this run's data
        for run in runs:
            job.tracker.dataset(run.name, run.fingerprint, run.place)
    return job.finish(report, partial(draw, plan.boards), rows=len(runs), refusals=refused)


def draw(boards: Sequence[Board], folder: Path) -> list[Figure]:
    """The primary metric of every leaderboard whose rows can be ranked."""
    figures = []
    for board in boards:
        column = board.columns[0]
        dots = [
            Dot(subject(row) or row.runs[0].name, row.kind, found.value, found.low, found.high, found.values)
            for row in board.rows
            if (found := row.measures.get(column)) is not None
        ]
        if not board.ranked_by or not dots:
            continue
        ranked = f"validation {board.noun}" if board.ranked_by == "validation" else "the number shown"
        caption = (
            f"{board.name}: {column} with 95 % intervals, ranked by {ranked}. Circles: layers, diamonds: "
            f"combinations of layers, grey squares: baselines; ticks: single seeds. All share their {board.noun}, "
            "so intervals that overlap may still differ: see the paired differences."
        )
        name = board_table(board).name.removesuffix("_summary")
        top = dots[0]
        figures.append(
            draw_leaderboard(
                folder, name, dots, metric=str(column), caption=caption, title=f"{board.name}: {column}",
                higher_is_better=column.about is not None and column.about.better == "higher",
                alt=f"Dots with whiskers, one a row, of {len(dots)} rows; the first, {top.name}, at {top.value:.3f}.",
            )
        )  # fmt: skip
    return figures


def track_boards(boards: Sequence[Board], job: OpenJob) -> None:
    """What leads each leaderboard, as numbers to plot and words to search by."""
    for board in boards:
        if board.ranked_by and (measure := board.rows[0].measures.get(board.columns[0])) is not None:
            what, where = board.label or board.job, board.data.name
            any_of, part = ("any classifier ", ".any") if board.classified else ("", "")
            job.tracker.metrics({f"first {what} {where} {any_of}{board.columns[0].metric}": measure.value})
            job.tracker.tags({f"xfm.first.{what}.{where}{part}": subject(board.rows[0])})


def page_of(run: Run, output: str) -> str:
    """The run's page: relative where both lie in folders, so that they may move together."""
    page = f"{run.place.rstrip('/')}/report.html"
    if is_local(run.place) and is_local(output) and Path(run.place).is_absolute():
        return Path(os.path.relpath(page, output)).as_posix()
    return run.tracked if "://" in run.tracked and not is_local(run.place) else page
