"""Everything a shard job checks before it starts a worker: shards, genes, weights, and what the output will hold."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from xfm.core.backbone import BackboneConfig
from xfm.core.errors import Refused
from xfm.core.schema import COUNTS, GENE_IDS, spoken
from xfm.core.source import Shard, Source
from xfm.engine.config import JobConfig
from xfm.engine.job import versions

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """What a job is about to do."""

    shards: Sequence[Shard]  # all of the source, in order
    genes: dict[str, Any]  # how the source's genes meet the vocabulary; empty where only reading can tell
    run: dict[str, Any]  # the content of run.json

    @property
    def weights(self) -> dict[str, Any]:
        """Identity of the checkpoint."""
        weights: dict[str, Any] = self.run["recipe"]["weights"]
        return weights

    @property
    def rows(self) -> int | None:
        """Promised rows, or None where a compressed file hides them."""
        rows = [shard.rows for shard in self.shards]
        return None if None in rows else sum(row for row in rows if row is not None)


def plan_shards(job: str, config: JobConfig, source: Source, backbone: BackboneConfig) -> ShardPlan:
    """Lists the source and checks it against the model, on the driver.

    Raises:
        Refused: nothing readable, another kind of input, no overlap with the vocabulary, no or a broken checkpoint.
    """
    weights = backbone.identity()
    checkpoint = backbone.describe()
    shards = source.shards()
    _check_input(source, backbone)
    table = source.genes()
    genes = backbone.check_genes(table) if table is not None else {}
    if genes:
        logger.info("genes: %d of %d (%s) are in the vocabulary", genes["matched"], genes["genes"], genes["column"])
    if genes.get("repeated"):
        logger.warning("%d genes share a %s with another; each keeps its own token", genes["repeated"], genes["column"])
    batch_key = getattr(backbone, "batch_key", None)
    if batch_key is not None and batch_key not in getattr(source, "obs", ()):
        raise Refused("NO_COLUMN", f"--backbone.batch_key {batch_key} must be among the columns of --source.obs")
    recipe = {
        "job": job,
        "device": "cuda" if config.gpus else "cpu",
        "config": config.recipe(),
        "weights": weights,
        "data": source.identity(),
    }
    run = {
        "job": job,
        "recipe": recipe,
        "settings": config.model_dump(mode="json"),
        "checkpoint": checkpoint,
        "versions": versions(),
    }
    return ShardPlan(shards, genes, run)


def _check_input(source: Source, backbone: BackboneConfig) -> None:
    """Whether the source gives what the model reads: texts, images, or cells where a recipe does not say.

    Raises:
        Refused: OTHER_INPUT.
    """
    reads = getattr(backbone, "reads", (GENE_IDS, COUNTS))
    gives = source.schema.names
    if not set(reads) <= set(gives):
        raise Refused(
            "OTHER_INPUT",
            f"--backbone.kind {getattr(backbone, 'kind', '?')} reads {spoken(reads)}; "
            f"--source.kind {getattr(source, 'kind', '?')} gives {spoken(gives)}",
        )


def chosen_layers(layers: Sequence[int] | Literal["all"], n_layers: int) -> tuple[int, ...]:
    """Sorted layer numbers, 0 (input embedding) to n_layers.

    Raises:
        Refused: NO_LAYER.
    """
    if layers == "all":
        return tuple(range(n_layers + 1))
    if not layers:
        raise Refused("NO_LAYER", f"--layers names none; the model has layers 0 (input embedding) to {n_layers}")
    wrong = [layer for layer in layers if not 0 <= layer <= n_layers]
    if wrong:
        raise Refused("NO_LAYER", f"--layers {wrong[0]}: the model has layers 0 (input embedding) to {n_layers}")
    return tuple(sorted(set(layers)))


def describe_plan(plan: ShardPlan, columns: int, dim: int, itemsize: int, workers: int | None, gpus: float) -> str:
    """What `--dry-run` prints."""
    rows = plan.rows
    size = "unknown until files are inflated" if rows is None else format_bytes(rows * columns * dim * itemsize)
    actors = str(workers) if workers else ("one per GPU" if gpus else "one per CPU")
    lines = [
        f"shards        {len(plan.shards):,}",
        f"rows          {'unknown until files are inflated' if rows is None else f'{rows:,}'}",
        f"output bytes  {size} ({columns} columns of {dim} numbers a row, before compression)",
        f"actors        {actors}{f', {gpus:g} GPU each' if gpus else ', CPU, one thread each'}",
    ]
    if plan.genes:
        lines.append(f"genes         {plan.genes['matched']:,} of {plan.genes['genes']:,} in the vocabulary")
    lines.append(f"weights       {plan.run['recipe']['weights']}")
    return "\n".join(lines)


def format_bytes(size: float) -> str:
    """1_500_000 → "1.5 MB"."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError
