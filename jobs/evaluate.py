"""Judges stored embeddings, layer by layer, beside baselines that may beat them.

python jobs/evaluate.py --embeddings runs/cells --labels cell_type --group donor_id --batch assay --output runs/judged
"""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from xfm.engine.config import JobConfig
from xfm.engine.job import main

Share = Annotated[float, Field(gt=0, lt=0.5)]
Task = Literal["probe", "knn", "clustering", "integration", "trajectory"]


class EvaluateJob(JobConfig):
    """Scores every stored layer: probes, clustering, batch mixing, pseudotime; each with interval and baselines."""

    embeddings: str
    """OUTPUT of embed (folder or URI), or an .h5ad or .zarr with obsm columns."""

    labels: tuple[str, ...] = Field(min_length=1)
    """obs columns to read from the embeddings, e.g. cell_type,disease; the first one decides the headline."""

    group: str | None = None
    """obs column that must not stand on both sides of a split (donor_id, slide, dataset_id); intervals resample it."""

    batch: str | None = None
    """obs column of technical origin, for batch mixing (task integration)."""

    time: str | None = None
    """obs column with a number that grows along development (task trajectory)."""

    root: str | None = None
    """Where pseudotime begins, as COLUMN=VALUE; by default the cells of the earliest time."""

    tasks: tuple[Task, ...] = Field(("probe", "knn", "clustering", "integration", "trajectory"), min_length=1)
    """What to score, probe among it; integration needs --batch, trajectory needs --time, without them left out."""

    baselines: tuple[Literal["majority", "chance", "hvg", "pca", "random", "scvi"], ...] = (
        "majority", "chance", "hvg", "pca", "random",
    )  # fmt: skip
    """Beside the layers: largest class, guessing by frequency, variable genes, their PCA, random weights, scVI."""

    combinations: tuple[Literal["mean", "last_mean", "last_concat", "scalar_mix"], ...] = (
        "mean", "last_mean", "last_concat", "scalar_mix",
    )  # fmt: skip
    """Of the layers of a pooling: mean of all, mean and concatenation of the last ones, a learned mix."""

    last_n: PositiveInt = 4
    """Layers that last_mean and last_concat take."""

    layers: tuple[NonNegativeInt, ...] | Literal["all"] = "all"
    """Layer numbers to judge; 0 is the input embedding."""

    pools: tuple[str, ...] | Literal["all"] = "all"
    """Poolings to judge, e.g. cls,mean."""

    validation: Share = 0.2
    """Share of cells that C and the best layer are chosen on."""

    test: Share = 0.2
    """Share of cells that are scored, once."""

    cells: PositiveInt = 20_000
    """At most so many cells, by a keyed draw; clustering needs all distances between them."""

    min_class: PositiveInt = 10
    """Classes with fewer cells are left out, and listed."""

    k: PositiveInt = 15
    """Neighbours of the kNN classifier."""

    bootstrap: PositiveInt = 2000
    """Resamples of groups for the 95 % intervals."""

    notes: tuple[str, ...] = ()
    """Sentences to put on the report, e.g. what the data are not."""

    @field_validator("tasks")
    @classmethod
    def _probe_is_there(cls, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
        if "probe" not in tasks:
            raise ValueError("must hold probe: on validation cells it chooses the layer, and the headline speaks of it")
        return tasks

    @model_validator(mode="after")
    def _root_has_a_time(self) -> "EvaluateJob":
        if self.root is not None and self.time is None:
            raise ValueError("--root says where pseudotime begins and needs --time to compare it with")
        return self

    @classmethod
    def neutral_fields(cls) -> set[str]:
        """Where the embeddings lie (their digest counts), and words."""
        return super().neutral_fields() | {"embeddings", "notes"}


def run(config: EvaluateJob) -> int:
    """Judges what OUTPUT lacks, chooses, compares, reports; returns the exit code."""
    from xfm.engine import session
    from xfm.engine.evaluate import evaluate
    from xfm.engine.evaluate_plan import describe, plan_evaluation

    plan = plan_evaluation(config)
    if config.dry_run:
        return session.print_plan(describe(plan))
    with session.open_job(config, plan.run, joint=True) as job:
        return evaluate(plan, job)


if __name__ == "__main__":
    main(EvaluateJob, run, "evaluate")
