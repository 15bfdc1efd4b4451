"""Extraction of every layer, as `jobs/embed.py` runs it and `jobs/evaluate.py` before it judges."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveInt

from xfm.core.unions import AnyBackbone, AnySource
from xfm.engine.config import JobConfig

if TYPE_CHECKING:
    from xfm.engine.session import OpenJob

Pooling = Literal["cls", "mean", "max"]
Opened = Callable[[JobConfig, dict[str, Any]], AbstractContextManager["OpenJob"]]


class EmbedJob(JobConfig):
    """Extracts the embedding of every layer, for every row of a source, in one pass."""

    source: AnySource
    """Where rows come from."""

    backbone: AnyBackbone
    """The pretrained model."""

    pools: tuple[Pooling, ...] = Field(("cls", "mean"), min_length=1)
    """What to keep of a layer: cls (state at <cls>), mean or max over content tokens (no padding, no special ones)."""

    layers: tuple[int, ...] | Literal["all"] = "all"
    """Layer numbers, or all; 0 is the input embedding, the last is the model's output."""

    batch_tokens: PositiveInt = 8192
    """Tokens of a batch, padding included; rows are sorted by length inside their shard."""

    dtype: Literal["float32", "float16"] = "float32"
    """Type of the stored numbers."""


def embed(config: EmbedJob, opened: "Opened | None" = None) -> int:
    """Plans, computes what OUTPUT lacks, writes the report; returns the exit code.

    Args:
        config: of the job.
        opened: opens OUTPUT and its records; by default `session.open_job`, which sends them to MLflow.
    """
    from xfm.compute.embed import Embedder
    from xfm.engine import session
    from xfm.engine.columns import columns_of, with_columns
    from xfm.engine.planning import chosen_layers, describe_plan, plan_shards
    from xfm.engine.stage import run_stage
    from xfm.models.reductions import Pool
    from xfm.studies.embed.report import embed_report

    source = with_columns(config.source, columns_of(config.backbone))
    plan = plan_shards("embed", config, source, config.backbone)
    layers = chosen_layers(config.layers, config.backbone.n_layers())
    if config.dry_run:
        columns, itemsize = len(config.pools) * len(layers), 2 if config.dtype == "float16" else 4
        return session.print_plan(
            describe_plan(plan, columns, config.backbone.dim(), itemsize, config.workers, config.gpus)
        )
    build = partial(
        Embedder,
        config.backbone,
        tuple(Pool(name) for name in config.pools),
        layers,
        batch_tokens=config.batch_tokens,
        seed=config.seed,
        stored_dtype=config.dtype,
        identity=plan.weights,
    )
    with (opened or session.open_job)(config, plan.run) as job:
        result = run_stage(
            source, config.backbone, config.seed, plan.shards, lambda device: partial(build, device=device),
            job.output, stage="embed", workers=config.workers, gpus=config.gpus, attempt=job.attempt,
        )  # fmt: skip
        return job.finish(embed_report(plan.run, plan.genes, result, layers, config.pools), rows=result.rows)
