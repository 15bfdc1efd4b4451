"""A comparison that runs its own members first: the table of what each of their settings does, then the leaderboards.

Every number of the table is read back from the scores.parquet of a member's OUTPUT, as of any other finished run.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from xfm.core.errors import EnvironmentProblem, Refused
from xfm.core.ledger import Refusal
from xfm.core.report import Figure
from xfm.core.storage import open_storage
from xfm.engine.session import OpenJob, open_job, print_plan
from xfm.studies.ablation.config import CompareJob, members_of
from xfm.studies.ablation.files import ablation_markdown, ablation_table
from xfm.studies.ablation.plan import Member, entries_of
from xfm.studies.ablation.report import ablation_report, draw_ablation
from xfm.studies.ablation.schedule import Ran, describe_members, run_members
from xfm.studies.ablation.shown import Show, shown_of
from xfm.studies.ablation.table import TESTED, Ablation, Asked, ablation
from xfm.studies.compare.boards import Board, compare
from xfm.studies.compare.finished_run import Run, RunRefused
from xfm.studies.compare.gather import Gathered, gather, read_run
from xfm.studies.compare.report import compare_report, leaderboard_markdown, leaderboard_table
from xfm.studies.compare.run import draw, page_of, run_of, track_boards
from xfm.studies.compare.tables import board_table

ENVIRONMENT = "ENVIRONMENT"  # code of a member that this machine or cluster could not run


def run_ablation(config: CompareJob) -> int:
    """Runs what is left of the members, reads, ranks, reports; returns the exit code."""
    members = members_of(config)
    if config.dry_run:
        return print_plan(describe_members(members))
    configs = [each for member in members for each in member.configs.values()]
    sources = {getattr(getattr(each, "source", None), "kind", "") for each in configs}
    # Members may be added later; each checks its own settings and data.
    with open_job(config, run_of(config, {}, sources - {""}), joint=True) as job:
        return compare_members(config, members, job)


def compare_members(config: CompareJob, members: Sequence[Member], job: OpenJob) -> int:
    """Runs what is left of the members, and reports; returns the exit code.

    Raises:
        Refused: other runs that are named cannot be read, or no member has a number.
    """
    others = gather(config.runs, config.query, config.metrics, config.output) if config.runs or config.query else None
    ran = run_members(members, job)
    runs = _read(ran, ("all",))
    if not runs:
        why = "; ".join(f"{refusal.key}: {refusal.code}, {refusal.message}" for refusal in ran.refused)
        if {refusal.code for refusal in ran.refused} == {ENVIRONMENT}:
            raise EnvironmentProblem(f"no member could run: {why}")
        raise Refused("NOTHING_TO_COMPARE", f"no member has a number to compare. {why}")
    table = ablation(_asked(config.show, members, runs, ran), config.against)
    boards, beside, problem = _boards(config, table, ran, others)
    refused = [*ran.refused, *(others.refused if others else [])]
    notes = [*config.notes, *_seeds_missing(members, ran), *_not_tracked(ran, runs), *problem]
    report = ablation_report(
        table, config.title or f"Ablation of {len(members)} members", notes, refused, job.run["versions"],
        [board_table(board) for board in boards],
    )  # fmt: skip
    pages = {run.fingerprint: page_of(run, job.output.uri) for run in [*runs.values(), *beside]}
    job.publish("ablation.md", ablation_markdown(report, table, pages).encode())
    job.publish_table("ablation.parquet", ablation_table(table))
    if boards:
        page = compare_report(boards, beside, refused, others.notes if others else [], job.run["versions"])
        job.publish("leaderboard.md", leaderboard_markdown(page, boards, beside, pages).encode())
        job.publish_table("leaderboard.parquet", leaderboard_table(boards))
        track_boards(boards, job)
    _track(table, job)
    return job.finish(report, partial(_draw, table, boards, config.curve), rows=len(runs), refusals=refused)


def _read(ran: Ran, metrics: Sequence[str]) -> dict[str, Run]:
    """The finished members that have rows, by key; one that cannot be read is refused."""
    runs = {}
    for entry in ran.finished:
        if not entry.member.rows:
            continue
        try:
            runs[entry.key] = read_run(
                entry.place, open_storage(entry.config.output), metrics, tracked=ran.links.get(entry.key, "")
            )
        except RunRefused as problem:
            ran.refused.append(Refusal(entry.place, entry.place, "read", problem.code, problem.message))
    return runs


def _asked(show: Show, members: Sequence[Member], runs: dict[str, Run], ran: Ran) -> list[Asked]:
    """The rows, in the order in which they are to stand."""
    rows = []
    for member in members:
        entries = entries_of([member])
        own = tuple(runs[entry.key] for entry in entries if entry.key in runs)
        places = {entry.place for entry in entries}
        why = next((f"{each.code}: {each.message}" for each in ran.refused if each.key in places), "it did not run")
        lacking = "" if own else f"the member {member.name} failed, {why}"
        words = shown_of(show, member, members)
        rows += [
            Asked(row.title, words, own, row.task, row.representation, row.series or "", row.published, lacking)
            for row in member.rows
        ]
    return rows


def _seeds_missing(members: Sequence[Member], ran: Ran) -> list[str]:
    lost = [(each, len(each.configs) - sum(entry.member is each for entry in ran.finished)) for each in members]
    return [f"{each.name}: {failed} of {len(each.configs)} seeds failed." for each, failed in lost if failed]


def _not_tracked(ran: Ran, runs: dict[str, Run]) -> list[str]:
    lacking = [key for key in runs if not ran.links.get(key)]
    if not lacking:
        return []
    return [f"{len(lacking)} of {len(runs)} runs are not in MLflow yet, e.g. {lacking[0]}: `python -m xfm sync` sends "
            "them, and the same command links them."]  # fmt: skip


def _boards(
    config: CompareJob, table: Ablation, ran: Ran, others: Gathered | None
) -> tuple[list[Board], list[Run], list[str]]:
    """The leaderboards of members and of what else was named, each data set on its own; the runs on them; and why there
    are none, where --metrics, --labels or --representations name what no run has."""
    runs = list(_read(replace(ran, refused=[]), config.metrics).values())
    known = {run.fingerprint for run in runs}
    runs += [run for run in (others.runs if others else []) if run.fingerprint not in known]
    labels = config.labels or (table.label,)
    try:
        return compare(runs, config.metrics, labels, config.representations, is_by_data=True), runs, []
    except Refused as refusal:
        return [], runs, [f"No leaderboard beside the table: {refusal.message}"]


def _draw(table: Ablation, boards: Sequence[Board], curve: str | None, folder: Path) -> list[Figure]:
    return [*draw_ablation(table, folder, curve), *draw(boards, folder)]


def _track(table: Ablation, job: OpenJob) -> None:
    """Accuracy of every row, as numbers to plot."""
    numbers = {f"accuracy {row.asked.title}": row.measures[TESTED].value for row in table.rows
               if TESTED in row.measures}  # fmt: skip
    job.tracker.metrics({name.replace(",", ""): value for name, value in numbers.items()})
