"""Many runs, one leaderboard: every metric with interval, cells, seeds, fingerprint; what differs beyond noise.

python jobs/compare.py --runs runs/a,runs/b,s3://bucket/c --output runs/board
python jobs/compare.py --query "experiment like 'xfm/evaluate/%' and tags.`xfm.job` = 'evaluate'" --output runs/board
"""

from typing import Literal

from pydantic import Field

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

    @classmethod
    def neutral_fields(cls) -> set[str]:
        """How runs were found (which ones they are counts), and the seed: nothing is drawn."""
        return super().neutral_fields() | {"runs", "query", "seed"}


def run(config: CompareJob) -> int:
    """Reads, ranks, reports; returns the exit code."""
    from xfm.engine import session
    from xfm.engine.compare import describe, plan_comparison, write_comparison

    plan = plan_comparison(config)
    if config.dry_run:
        return session.print_plan(describe(plan))
    with session.open_job(config, plan.run, joint=True) as job:
        return write_comparison(plan, job)


if __name__ == "__main__":
    main(CompareJob, run, "compare")
