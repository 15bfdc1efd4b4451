"""One stage of a job: the shards that an OUTPUT still lacks, computed and committed, with progress.

Tokens that are trained on are a stage of its own, whose parts are split and kept between epochs.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from xfm.core.backbone import BackboneConfig
from xfm.core.errors import Refused
from xfm.core.ledger import Receipt, Refusal
from xfm.core.source import Shard, Source
from xfm.core.tokenizer import Tokenizer
from xfm.engine.cluster import connect
from xfm.engine.envelope import Envelope
from xfm.engine.output import Output
from xfm.engine.progress import ProgressLog
from xfm.training.tokens import SplitRows, TokenParts, token_parts

logger = logging.getLogger(__name__)

TOKENS = "tokens"  # the folder below OUTPUT
SMALL = 8  # so few shards need no second process to hand their tokens on


@dataclass(slots=True)
class StageResult:
    """What a stage did."""

    rows: int = 0  # committed in OUTPUT, by this run and earlier ones
    computed: int = 0  # rows of this run alone, in `wall_s` seconds
    wall_s: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)  # quarantine lines by code
    seconds: Counter[str] = field(default_factory=Counter)  # summed over workers, by stage: read, embed, commit
    notes: list[dict[str, Any]] = field(default_factory=list)  # what tokenizers said, each distinct note once
    quarantined: list[Refusal] = field(default_factory=list)  # the quarantine lines themselves


def run_stage(
    source: Source,
    backbone: BackboneConfig,
    seed: int,
    shards: Sequence[Shard],
    build: Callable[[str], Callable[[], Any]],
    output: Output,
    *,
    stage: str,
    workers: int | None,
    gpus: float,
    attempt: int = 1,
) -> StageResult:
    """Runs what is left of `shards` and brings the manifest into their order.

    Args:
        build: from the device's name to the recipe of a worker's model; called on workers.
    """
    result = StageResult()
    committed = output.committed
    left = [shard for shard in shards if shard.key not in committed]
    if committed:
        logger.info("%s: %d of %d shards are committed already", stage, len(shards) - len(left), len(shards))
    if left:
        connect()
        from xfm.engine.pipeline import plan, run_shards

        where = plan(workers, gpus)
        rows = [shard.rows for shard in left if shard.rows is not None]
        total = sum(rows) if len(rows) == len(left) else None
        logger.info("%s: %d shards on %d workers (%s)", stage, len(left), where.workers, where.device)
        with ProgressLog(stage, total, len(left), "rows") as progress:
            for envelope in run_shards(
                source, backbone, seed, left, build(where.device), stage=stage, output=output.uri, where=where
            ):
                _record(output, envelope, attempt)
                result.computed += envelope.rows
                result.seconds.update(envelope.seconds)
                if envelope.notes and envelope.notes not in result.notes:
                    result.notes.append(envelope.notes)
                progress.add(envelope.rows + len(envelope.refused))
            result.wall_s = progress.seconds
    output.finish([shard.key for shard in shards])
    result.rows = sum(receipt.rows for receipt in output.committed.values())
    result.quarantined = output.quarantined()
    result.refused = Counter(refusal.code for refusal in result.quarantined)
    return result


def _record(output: Output, envelope: Envelope, attempt: int) -> None:
    if envelope.error is not None:
        code, message = envelope.error
        logger.warning("shard %s refused: %s: %s", envelope.key, code, message)
        output.refuse_shard([Refusal(envelope.key, envelope.path or envelope.key, envelope.stage, code, message)])
        return
    refusals = []
    for row in envelope.refused:
        code, _, message = row.reason.partition(": ")
        refusals.append(Refusal(envelope.key, row.row_id, row.stage, code, message))
    seconds = sum(envelope.seconds.values())
    receipt = Receipt(
        envelope.key, envelope.rows, envelope.sha256, envelope.size, seconds, attempts=attempt, path=envelope.path
    )
    output.record(receipt, refusals)


@dataclass(frozen=True, slots=True)
class ForTraining:
    """As much of a backbone's recipe as tokenising takes, for rows that are kept between epochs."""

    backbone: BackboneConfig

    def tokenizer(self, seed: int) -> Tokenizer:
        """Pictures stay encoded."""
        return self.backbone.tokenizer(seed).for_training()


def store_tokens(
    source: Source,
    backbone: BackboneConfig,
    seed: int,
    shards: Sequence[Shard],
    split: Callable[[], SplitRows],
    uri: str,
    run: Mapping[str, Any],
    *,
    workers: int | None,
    stage: str = TOKENS,
) -> tuple[TokenParts, StageResult]:
    """Stores what of the shards is not stored yet.

    Args:
        split: recipe of what sorts the rows of a shard into their parts.
        uri: where the tokens go, an OUTPUT of its own.
        run: content of its run.json; jobs with the same may share it.
        workers: processes; a few shards take one in any case.

    Raises:
        Refused: not a single shard could be read, or `uri` belongs to another run.
    """
    with Output(uri, run, joint=True) as output:
        result = run_stage(
            source, cast(BackboneConfig, ForTraining(backbone)), seed, shards, lambda _device: split, output,
            stage=stage, workers=1 if len(shards) <= SMALL else workers, gpus=0, attempt=output.attempt,
        )  # fmt: skip
        keys = [shard.key for shard in shards if shard.key in output.committed]
        if not keys:
            code, message = next(((each.code, each.message) for each in result.quarantined), ("NO_ROWS", "no rows"))
            raise Refused(code, f"no shard could be read: {message}")
        return token_parts(output.uri, keys), result
