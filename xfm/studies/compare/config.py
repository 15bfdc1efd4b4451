"""Settings of leaderboards: which runs, which scores."""

from typing import Literal

from pydantic import Field

from xfm.engine.config import JobConfig


class Leaderboards(JobConfig):
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
