"""A job that learns, from its settings to its report, in this process: the engine's own steps without a cluster."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa

from xfm.compute.read import read_tokens
from xfm.core.backbone import BackboneConfig
from xfm.core.ledger import Receipt, Refusal
from xfm.core.report import Figure, Report
from xfm.core.source import Shard, Source
from xfm.engine.learn import Prepared, conclude, plan_learning, prepare, recipe_of
from xfm.engine.learn_config import LearnConfig
from xfm.engine.output import Output, write_part
from xfm.engine.stage import StageResult
from xfm.training.in_process import train_here
from xfm.training.settings import Trained
from xfm.training.tokens import SplitRows, TokenParts, token_parts


def store_here(
    source: Source,
    backbone: BackboneConfig,
    seed: int,
    shards: Sequence[Shard],
    split: Callable[[], SplitRows],
    uri: str,
    run: Mapping[str, Any],
    *,
    workers: int | None,
    stage: str = "tokens",
) -> tuple[TokenParts, StageResult]:
    """As `engine.stage.store_tokens`, shard by shard."""
    result, tokenizer, arrange = StageResult(), backbone.tokenizer(seed).for_training(), split()
    with Output(uri, run, joint=True) as output:
        for shard in shards:
            found = read_tokens(source, tokenizer, shard)
            table = arrange(found.tokens)
            sha256, size = write_part(output.uri, shard.key, table)
            refusals = [Refusal(shard.key, row.row_id, row.stage, *row.reason.split(": ", 1)) for row in found.refused]
            output.record(Receipt(shard.key, table.num_rows, sha256, size, 0.0, 1), refusals)
        output.finish([shard.key for shard in shards])
        result.quarantined = output.quarantined()
        result.refused.update(refusal.code for refusal in result.quarantined)
        return token_parts(output.uri, [shard.key for shard in shards]), result


def prepare_here(config: LearnConfig) -> Prepared:
    """Tokens in OUTPUT/tokens, and what the task makes of the rows."""
    with patch("xfm.engine.learn.store_tokens", store_here):
        return prepare(config, plan_learning(config), config.output)


@dataclass
class Published:
    """As much of `engine.session.OpenJob` as the end of a job needs; keeps what is published below a folder."""

    folder: Path
    kind: str | None = None
    said: str = ""
    report: Report | None = None
    figures: list[Figure] = field(default_factory=list)
    tables: dict[str, pa.Table] = field(default_factory=dict)

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    def publish_checkpoint(self, kind: str, write: Callable[[Path], str]) -> None:
        self.kind, self.said = kind, write(self.checkpoint)

    def publish_table(self, name: str, table: pa.Table) -> None:
        self.tables[name] = table

    def finish(
        self, report: Report, draw: Callable[[Path], list[Figure]] | None, rows: int, refusals: Sequence[Refusal]
    ) -> int:
        self.figures = draw(self.folder) if draw is not None else []
        self.report = report.model_copy(update={"figures": self.figures})
        return 0


def run_here(config: LearnConfig, prepared: Prepared | None = None) -> tuple[Published, Trained]:
    """The whole job; what it publishes lies below OUTPUT."""
    prepared = prepared or prepare_here(config)
    recipe, settings = recipe_of(config, prepared)
    trained = train_here(recipe, settings, Path(config.output) / "train")
    job = Published(Path(config.output))
    assert conclude(config, prepared, recipe, settings, trained, job) == 0  # type: ignore[arg-type]
    return job, trained
