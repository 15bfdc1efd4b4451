"""Embeddings for an evaluation that begins with a source and a backbone: the embed job, into OUTPUT/embeddings."""

from dataclasses import dataclass
from typing import Any

from xfm.core.errors import OK, QUARANTINED
from xfm.core.ledger import REPORT
from xfm.core.source import Source
from xfm.core.storage import below, open_storage
from xfm.engine.embed import EmbedJob, embed
from xfm.engine.evaluate_rows import columns_wanted
from xfm.engine.job import say

EMBEDDINGS = "embeddings"


@dataclass(frozen=True, slots=True)
class Embedded:
    """What there is to judge now.

    Attributes:
        config: of the evaluation, with `embeddings` filled in.
        code: exit code of the embed job; OK where there was nothing to embed.
        ends: whether there is nothing to judge: a dry run, or every row was refused.
    """

    config: Any
    code: int = OK
    ends: bool = False


def embedded(config: Any) -> Embedded:
    """Embeds what OUTPUT/embeddings lacks, if the config names a source and a backbone.

    Args:
        config: `EvaluateJob`.

    Raises:
        Refused, EnvironmentProblem: as embed.
    """
    if config.source is None:
        return Embedded(config)
    place = below(config.output, EMBEDDINGS)
    job = EmbedJob(
        source=with_columns(config.source, columns_wanted(config)), backbone=config.backbone, output=place,
        pools=("cls", "mean") if config.pools == "all" else config.pools, workers=config.workers, gpus=config.gpus,
        seed=config.seed, experiment=config.experiment, dry_run=config.dry_run,
    )  # fmt: skip
    filled = config.model_copy(update={"embeddings": place})
    is_there = open_storage(place).size(REPORT) is not None
    if config.dry_run:
        code = OK if is_there else embed(job)
        if not is_there:
            say("what is judged on them is planned once they are there")
        return Embedded(filled, code, ends=not is_there)
    code = embed(job)
    return Embedded(filled, code, ends=code not in (OK, QUARANTINED))


def with_columns(source: Any, names: list[str]) -> Source:
    """The source with the obs columns that a job needs beside those it carries already."""
    carried = tuple(source.obs)
    lacking = tuple(name for name in names if name not in carried)
    made: Source = type(source).model_validate(source.model_dump() | {"obs": (*carried, *lacking)})
    return made
