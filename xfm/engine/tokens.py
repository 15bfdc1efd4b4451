"""Rows to tokens that are trained on: a stage of its own, whose parts are split and kept between epochs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from xfm.core.backbone import BackboneConfig
from xfm.core.errors import Refused
from xfm.core.source import Shard, Source
from xfm.core.tokenizer import Tokenizer
from xfm.engine.output import Output
from xfm.engine.stage import StageResult, run_stage
from xfm.training.tokens import SplitRows, TokenParts, token_parts

TOKENS = "tokens"  # the folder below OUTPUT
SMALL = 8  # so few shards need no second process to hand their tokens on


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
