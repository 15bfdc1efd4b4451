"""Many runs, one leaderboard: every metric with interval, cells, seeds, fingerprint; what differs beyond noise.

python jobs/compare.py --runs runs/a,runs/b,s3://bucket/c --output runs/board
python jobs/compare.py --query "experiment like 'xfm/evaluate/%' and tags.`xfm.job` = 'evaluate'" --output runs/board

Or it runs the jobs first that it compares, each from several seeds, and prints the table of what their settings do:

python jobs/compare.py --config jobs/presets/fusion_ablation.yaml --output runs/ablation

    base: {source: {kind: atlas}, split: split}                            # settings that the members share
    members:
      aligned: {job: pretrain, task: {kind: alignment}}
      fused: {job: finetune, after: aligned, backbone: {kind: fusion}, task: {kind: adversarial}}
      raw: {job: evaluate, labels: [donor_id], tasks: [probe]}
    seeds: 5

Each lies in OUTPUT/members/NAME/seed-K. The same command continues; members and seeds may be added.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from xfm.engine.config import JobConfig
from xfm.engine.job import main


class CompareJob(JobConfig):
    """Ranks runs on validation cells, shows them on test cells, and tests each against the first."""

    runs: tuple[str, ...] = ()
    """OUTPUTs of evaluate, finetune, zero_shot, layerwise, pretrain: folders, URIs, patterns of local folders
    ('runs/*')."""

    query: str | None = None
    """Filter of MLflow runs, e.g. "experiment like 'xfm/evaluate/%' and metrics.cells > 1000"; adds to --runs."""

    metrics: tuple[str, ...] = Field(("primary",), min_length=1)
    """primary (one a task), all, or names: f1, knn.accuracy; the first one ranks."""

    labels: tuple[str, ...] = ()
    """Labels to show; by default all."""

    representations: tuple[str, ...] = Field(("best", "last", "baselines"), min_length=1)
    """best (chosen on validation), last (deepest layer), baselines, all, or names: mean_l07,hvg."""

    columns: Literal["one", "data"] = "one"
    """one: all runs were judged on the same cells, else refused; data: each data set has columns of its own."""

    members: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Jobs to run first, by name: `job` (pretrain, finetune, evaluate), its settings, and title, after, seeds, rows,
    published."""

    base: dict[str, Any] = Field(default_factory=dict)
    """Settings that all members share whose job has them; under pretrain, finetune, evaluate those of one job."""

    seeds: PositiveInt = 1
    """Run each member so many times, from --seed on; evaluate once."""

    against: str | None = None
    """Title of the row of the members' table that all others are tested against."""

    title: str | None = None
    """Of the members' page."""

    notes: tuple[str, ...] = ()
    """Sentences to put on the members' page, e.g. what the data are not."""

    @model_validator(mode="after")
    def _members_are_jobs(self) -> Self:
        """Before anything runs: a typo in the last member's settings must not be found after hours."""
        from xfm.engine.settings import UsageError

        if self.members and "columns" in self.model_fields_set:
            raise ValueError("--columns goes with --runs alone: beside members each data set has a board of its own")
        try:
            check_rows(plan_of(self), self.against)
        except UsageError as problem:
            raise ValueError(str(problem).rstrip(".")) from None
        return self

    @classmethod
    def not_in_fingerprint(cls) -> set[str]:
        """How runs were found or made (which ones they are counts), the seed (nothing is drawn), and words."""
        made = {"members", "base", "seeds", "against", "title", "notes"}
        return super().not_in_fingerprint() | made | {"runs", "query", "seed"}


def check_rows(members: Sequence[Any], against: str | None) -> None:
    """That titles tell rows apart, and that the one to test against is among them.

    Raises:
        UsageError: they do not, or it is not.
    """
    from xfm.engine.settings import UsageError

    titles = [row.title for member in members for row in member.rows]
    if twice := sorted({title for title in titles if titles.count(title) > 1}):
        raise UsageError(f"--members: two rows of the table are called {twice[0]!r}; give titles that differ")
    if against is not None and against not in titles:
        near = get_close_matches(against, titles, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"--against {against}: is no row of the table.{hint} Known: {'; '.join(titles) or 'none'}")


def plan_of(config: CompareJob) -> list[Any]:
    """The members (`engine.members_plan.Member`).

    Raises:
        UsageError: a setting that no job has.
    """
    if not config.members:
        return []
    from evaluate import EvaluateJob

    from xfm.engine.learn_config import FinetuneConfig, PretrainConfig
    from xfm.studies.ablation.plan import plan_members

    jobs: dict[str, type[JobConfig]] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig, "evaluate": EvaluateJob}
    return plan_members(config.members, config.base, jobs, config.output, seed=config.seed, seeds=config.seeds)


def run(config: CompareJob) -> int:
    """Runs the members, reads, ranks, reports; returns the exit code."""
    from xfm.engine import session

    if config.members:
        return _run_members(config)
    from xfm.studies.compare.run import describe, plan_comparison, write_comparison

    plan = plan_comparison(config)
    if config.dry_run:
        return session.print_plan(describe(plan))
    with session.open_job(config, plan.run, joint=True) as job:
        return write_comparison(plan, job)


def _run_members(config: CompareJob) -> int:
    from xfm.engine import session
    from xfm.studies.ablation.run import compare_members, run_of
    from xfm.studies.ablation.schedule import describe_members

    members = plan_of(config)
    if config.dry_run:
        return session.print_plan(describe_members(members))
    with session.open_job(config, run_of(config, members), joint=True) as job:
        return compare_members(config, members, job)


if __name__ == "__main__":
    main(CompareJob, run, "compare")
