"""Extraction of every layer, as `jobs/embed.py` runs it and `jobs/evaluate.py` before it judges."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from xfm.compute.embed import Embedder
from xfm.engine.columns import columns_of, with_columns
from xfm.engine.config import JobConfig
from xfm.engine.planning import chosen_layers, describe_plan, plan_shards
from xfm.engine.session import OpenJob, open_job, print_plan
from xfm.engine.stage import run_stage
from xfm.models.reductions import Pool
from xfm.studies.embed.config import EmbedJob
from xfm.studies.embed.report import embed_report

Opened = Callable[[JobConfig, dict[str, Any]], AbstractContextManager[OpenJob]]


def embed(config: EmbedJob, opened: Opened | None = None) -> int:
    """Plans, computes what OUTPUT lacks, writes the report; returns the exit code.

    Args:
        config: of the job.
        opened: opens OUTPUT and its records; by default `open_job`, which sends them to MLflow.
    """
    source = with_columns(config.source, columns_of(config.backbone))
    plan = plan_shards("embed", config, source, config.backbone)
    layers = chosen_layers(config.layers, config.backbone.n_layers())
    if config.dry_run:
        columns, itemsize = len(config.pools) * len(layers), 2 if config.dtype == "float16" else 4
        return print_plan(describe_plan(plan, columns, config.backbone.dim(), itemsize, config.workers, config.gpus))
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
    with (opened or open_job)(config, plan.run) as job:
        result = run_stage(
            source, config.backbone, config.seed, plan.shards, lambda device: partial(build, device=device),
            job.output, stage="embed", workers=config.workers, gpus=config.gpus, attempt=job.attempt,
        )  # fmt: skip
        return job.finish(embed_report(plan.run, plan.genes, result, layers, config.pools), rows=result.rows)
