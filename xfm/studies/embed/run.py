"""Extraction of every layer, as `jobs/embed.py` runs it and `jobs/evaluate.py` before it judges."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from xfm.compute.embed import Embedder
from xfm.compute.predict import PREDICTED, PROBABILITIES, head_of
from xfm.core.errors import Refused
from xfm.core.source import Source
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
    if config.predictions:
        _check_names(source, head_of(config.backbone))
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
        predictions=config.predictions,
    )
    with (opened or open_job)(config, plan.run) as job:
        result = run_stage(
            source, config.backbone, config.seed, plan.shards, lambda device: partial(build, device=device),
            job.output, stage="embed", workers=config.workers, gpus=config.gpus, attempt=job.attempt,
        )  # fmt: skip
        return job.finish(embed_report(plan.run, plan.genes, result, layers, config.pools), rows=result.rows)


def _check_names(source: Source, about: Mapping[str, Any]) -> None:
    """Raises Refused: COLUMN_TAKEN, the data bring a column that the head would write."""
    taken = {PREDICTED, PROBABILITIES if "classes" in about else PREDICTED} & set(getattr(source, "obs", ()))
    if taken:
        raise Refused("COLUMN_TAKEN", f"--predictions writes {' and '.join(sorted(taken))}, and --source.obs asks "
                      "for a column of that name; leave it out there")  # fmt: skip
