"""Extraction of every layer, as `jobs/embed.py` runs it and `jobs/evaluate.py` before it judges."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from xfm.compute.embed import Embedder
from xfm.compute.predict import PREDICTED, PROBABILITIES, head_of
from xfm.core.errors import Refused
from xfm.core.report import Report, Table
from xfm.core.source import Source
from xfm.engine.columns import columns_of, with_columns
from xfm.engine.config import JobConfig
from xfm.engine.planning import chosen_layers, describe_plan, plan_shards
from xfm.engine.session import OpenJob, open_job, print_plan
from xfm.engine.stage import run_stage
from xfm.models.reductions import Pool
from xfm.studies.embed.config import EmbedJob

Opened = Callable[[JobConfig, dict[str, Any]], AbstractContextManager[OpenJob]]


def embed(config: EmbedJob, opened: Opened | None = None) -> int:
    """Plans, computes what OUTPUT lacks, writes the report; returns the exit code.

    Args:
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


def embed_report(
    run: Mapping[str, Any], genes: Mapping[str, Any], result: Any, layers: Sequence[int], pools: Sequence[str]
) -> Report:
    """What an `embed` left behind.

    Args:
        genes: how the source's genes meet the vocabulary; empty where each file has its own.
        result: the stage's rows, seconds and refusals (`engine.stage.StageResult`).
    """
    rate = result.computed / result.wall_s if result.wall_s else 0.0
    refused = sum(result.refused.values())
    headline = (
        f"{result.rows:,} rows have {len(layers)} layers x {len(pools)} poolings each"
        + (f"; {refused:,} rows or files were refused" if refused else "")
        + "."
    )
    numbers: dict[str, Any] = {"rows": result.rows, "layers": len(layers), "poolings": len(pools)}
    tables = []
    if result.computed:
        numbers |= {"rows computed by this start": result.computed, "seconds": round(result.wall_s, 1)}
        numbers["rows per second, start of workers included"] = round(rate, 2)
        rows = [[stage, round(s, 2), round(1000 * s / result.computed, 3)] for stage, s in result.seconds.items()]
        tables.append(
            Table(
                name="seconds",
                caption="Where the time went, summed over workers",
                columns=["stage", "seconds", "ms per row"],
                rows=rows,
                note="read includes tokenising; both run beside the model, in other processes.",
            )
        )
    numbers |= _truncated(result.notes)
    matches = [dict(genes)] if genes else [match for note in result.notes for match in note.get("genes", [])]
    if matches:
        tables.append(
            Table(
                name="genes",
                caption="Genes of the data that the model's vocabulary knows",
                columns=["identifiers", "known", "genes", "sharing a token"],
                rows=[[m["column"], m["matched"], m["genes"], m["repeated"]] for m in matches[:20]],
            )
        )
    recipe = run["recipe"]
    return Report(
        title="Layer embeddings",
        job="embed",
        headline=headline,
        numbers=numbers,
        tables=tables,
        provenance={
            "weights": recipe["weights"],
            "checkpoint": run.get("checkpoint", {}),
            "data": recipe["data"],
            "versions": run["versions"],
        },
        refused=dict(result.refused),
    )


def _truncated(notes: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Rows cut at the model's length, where the tokenizer counts them: of this start, shard by shard."""
    counts: dict[int, dict[str, int]] = {}
    for note in notes:
        if "truncated" in note:
            counts.setdefault(note["max_length"], {}).update(note["truncated"])
    return {f"rows cut at {length:,} tokens": sum(of_shard.values()) for length, of_shard in counts.items()}
