"""Embeddings for an evaluation that begins with a source: the embed job, into OUTPUT/embeddings.

A source of vectors needs no backbone: they are stored there as they are, and judged like any others.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Self, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.backbone import BackboneConfig
from xfm.core.config import Config
from xfm.core.errors import OK, QUARANTINED, REFUSED_INPUT, Refused
from xfm.core.ledger import REPORT
from xfm.core.schema import EMBEDDING, ROW_ID, SHARD
from xfm.core.source import Source
from xfm.core.storage import below, open_storage
from xfm.core.tokenizer import Tokens
from xfm.engine.columns import columns_of, with_columns
from xfm.engine.job import say, versions
from xfm.engine.output import Output
from xfm.engine.stage import run_stage
from xfm.studies.embed.config import EmbedJob
from xfm.studies.embed.run import Opened, embed
from xfm.studies.evaluate.config import EvaluateJob
from xfm.studies.evaluate.question import Question
from xfm.track.redact import redact

STORED = "embedding"  # what vectors without a name of their own are stored as


def stored_name(source: Any) -> str:
    """What a source's vectors are stored as: the name it knows them by, e.g. mean_l07 or geneformer, else embedding."""
    for field in ("column", "embedding"):
        name = getattr(source, field, None)
        if isinstance(name, str) and name != ROW_ID and name not in getattr(source, "obs", ()):
            return name
    return STORED


@dataclass(frozen=True, slots=True)
class AsGiven:
    """Stands where a backbone's recipe stands and where its tokenizer does: rows pass as they are.

    The source has refused those without a vector, or with numbers that are not finite.
    """

    def tokenizer(self, seed: int) -> Self:  # noqa: ARG002
        return self

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The same batch."""
        return batch

    def collate(self, batch: pa.RecordBatch | pa.Table) -> Tokens:
        """Nothing reads these rows as tokens."""
        raise TypeError(f"{batch.num_rows} rows of vectors have no tokens")

    def lengths(self, rows: pa.Table) -> NDArray[np.int64]:
        """(N,) ones."""
        return np.ones(rows.num_rows, np.int64)

    def for_training(self) -> Self:
        return self

    def describe(self) -> dict[str, Any]:
        """Nothing was matched or dropped."""
        return {}


class VectorPart:
    """Where an embedder stands: lays out a shard's rows as an embed job does.

    Args:
        column: what the vectors are stored as.
    """

    def __init__(self, column: str) -> None:
        self.column = column

    def __call__(self, rows: pa.Table) -> pa.Table:
        """row_id, obs columns, and the vectors under their name, last."""
        kept = [name for name in rows.column_names if name not in (SHARD, EMBEDDING)]
        return rows.select(kept).append_column(self.column, rows[EMBEDDING])


EMBEDDINGS = "embeddings"


@dataclass(frozen=True, slots=True)
class Embedded:
    """What there is to judge now."""

    config: EvaluateJob  # of the evaluation, with `embeddings` filled in
    code: int = OK  # exit code of the embed job; OK where there was nothing to embed
    ends: bool = False  # whether there is nothing to judge: a dry run, or every row was refused


def embedded(config: EvaluateJob, opened: Opened | None = None) -> Embedded:
    """Embeds what OUTPUT/embeddings lacks, if the config names a source and a backbone.

    Raises:
        Refused: NO_BACKBONE, a source that gives no vectors needs one.
        Refused, EnvironmentProblem: as embed.
    """
    if config.source is None:
        return Embedded(config)
    place = below(config.output, EMBEDDINGS)
    source = with_columns(config.source, Question.of(config).columns)
    filled = config.model_copy(update={"embeddings": place})
    is_there = open_storage(place).size(REPORT) is not None
    if config.dry_run and is_there:
        return Embedded(filled)
    code = (
        _stored(source, place, seed=config.seed, workers=config.workers, dry_run=config.dry_run)
        if config.backbone is None
        else embed(_job(config, source), opened)
    )
    if config.dry_run:
        say("what is judged on them is planned once they are there")
    return Embedded(filled, code, ends=config.dry_run or code not in (OK, QUARANTINED))


def embedding_recipe(config: EvaluateJob) -> dict[str, Any]:
    """What the embeddings of an evaluation that begins with a source depend on, as their run.json has it.

    Raises:
        Refused: source or checkpoint are not at hand.
    """
    assert config.source is not None
    source = with_columns(config.source, Question.of(config).columns)
    if config.backbone is None:
        return _stored_recipe(source)
    read = with_columns(source, columns_of(config.backbone))
    return {"config": _job(config, source).recipe(), "weights": config.backbone.identity(), "data": read.identity()}


def _job(config: EvaluateJob, source: Source) -> EmbedJob:
    """The embed job."""
    return EmbedJob(
        source=source, backbone=config.backbone, output=below(config.output, EMBEDDINGS),
        pools=("cls", "mean") if config.pools == "all" else config.pools, workers=config.workers, gpus=config.gpus,
        seed=config.seed, experiment=config.experiment, dry_run=config.dry_run,
    )  # fmt: skip


def _stored_recipe(source: Source) -> dict[str, Any]:
    plain = cast(Config, source)
    return {"job": "embed", "config": {"source": plain.recipe()}, "weights": {}, "data": source.identity()}


def _stored(source: Source, place: str, *, seed: int, workers: int | None, dry_run: bool) -> int:
    """The source's vectors as an OUTPUT of embed; the exit code that embed would have.

    Raises:
        Refused: NO_BACKBONE.
    """
    kind, given = getattr(source, "kind", "?"), source.schema.names
    if EMBEDDING not in given:
        raise Refused("NO_BACKBONE", f"--source.kind {kind} gives {', '.join(given)} and no vectors: name a --backbone "
                      "to embed with")  # fmt: skip
    shards, column = source.shards(), stored_name(source)
    if dry_run:
        say(f"vectors         {column}, {len(shards):,} shards of --source.kind {kind}, judged as they are")
        return OK
    plain = cast(Config, source)
    run = {
        "job": "embed",
        "recipe": _stored_recipe(source),
        "settings": redact({"source": plain.model_dump(mode="json"), "backbone": None}),
        "versions": versions(),
    }
    with Output(place, run) as output:
        result = run_stage(
            source, cast(BackboneConfig, AsGiven()), seed, shards, lambda _device: partial(VectorPart, column),
            output, stage="vectors", workers=workers, gpus=0.0, attempt=output.attempt,
        )  # fmt: skip
        if not result.rows:
            return REFUSED_INPUT
        output.write_json(REPORT, {"job": "embed vectors", "parts": len(output.committed)})
        return QUARANTINED if result.refused else OK
