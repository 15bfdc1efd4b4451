"""Pretrains scGPT on Ray Train: masked expression and generation by cell prompt.

    python jobs/pretrain.py --source.kind census --source.uri STORE --layers 4 --dim 64 --heads 4 --ffn 64 \
        --output runs/small
    python jobs/embed.py ... --backbone.kind scgpt --backbone.checkpoint runs/small/checkpoint
"""

from functools import partial
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from xfm.engine.config import AnySource
from xfm.engine.job import main
from xfm.engine.training_config import TrainingConfig

Share = Annotated[float, Field(gt=0, lt=1)]


class PretrainJob(TrainingConfig):
    """Trains scGPT from scratch, or further, on the cells of a source; backbones read OUTPUT/checkpoint."""

    source: AnySource
    """Where cells come from."""

    init: str | None = None
    """Checkpoint to start from (DIR or hf://OWNER/NAME), with its own vocabulary and sizes. Without: from scratch."""

    vocab: str | None = None
    """vocab.json for training from scratch; by default the symbols of the source's gene table."""

    layers: PositiveInt = 12
    """Transformer blocks; like the next five used only from scratch."""

    dim: PositiveInt = 512
    """Width of a state."""

    heads: PositiveInt = 8
    """Attention heads; must divide dim."""

    ffn: PositiveInt = 512
    """Hidden width of the feed-forward part."""

    dropout: float = Field(0.2, ge=0, lt=1)
    """Share of activations dropped in training; 0 lets CPUs use fused attention, several times faster."""

    n_bins: PositiveInt = Field(51, ge=3)
    """Bins of expression, zero included."""

    ties: Literal["mid", "keyed", "low", "high"] = "mid"
    """Bin of a value that spans several: the middle one, the lowest, the highest, or one drawn by seed and cell."""

    max_length: PositiveInt = Field(1200, ge=2)
    """Tokens of a cell, <cls> included; longer cells are sampled by a keyed choice."""

    mask_fractions: tuple[Share, ...] = Field((0.25, 0.5, 0.75), min_length=1)
    """Shares of a cell's genes to hide; one is drawn for each cell and epoch."""

    weights: tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] = (1.0, 1.0, 1.0)
    """Of predicting a hidden gene from its own state, from the cell vector (GEPC), and prompted by the cell vector."""

    cell_prompt_after: NonNegativeInt = 1000
    """Steps before the third of these begins."""


def run(config: PretrainJob) -> int:
    """Tokenises, trains, writes checkpoint and report; returns the exit code."""
    from xfm.engine import session
    from xfm.engine.planning import describe_plan, plan_shards
    from xfm.engine.pretrain import further, scratch, settings_of, tokenise, track_step, write_weights
    from xfm.engine.train import train
    from xfm.loops.pretraining.masked_expression import MaskedExpression
    from xfm.loops.pretraining.report import drawer, pretrain_report
    from xfm.loops.training.tokens import TRAIN, VALIDATION
    from xfm.tasks.masked_expression import Objectives

    sizes = {"n_layers": config.layers, "n_heads": config.heads, **config.model_dump(
        include={"dim", "ffn", "dropout", "n_bins", "max_length"})}  # fmt: skip
    start = (further(config.init, config.vocab, config.max_length, config.ties) if config.init
             else scratch(config.source, sizes, config.vocab, config.ties, config.seed))  # fmt: skip
    plan = plan_shards("pretrain", config, config.source, start)
    if config.dry_run:
        return session.print_plan(describe_plan(plan, 2, config.max_length, 2, config.workers, config.gpus))
    with session.open_job(config, plan.run, joint=True) as job:
        parts, tokens = tokenise(config.source, start, plan.shards, config, plan.run, job)
        cells = sum(parts.count(TRAIN)), sum(parts.count(VALIDATION))
        settings = settings_of(config, cells[0])
        objectives = Objectives(config.weights, config.cell_prompt_after)
        recipe = MaskedExpression(start, parts, objectives, config.mask_fractions, config.batch_size,
                                  config.batch_tokens, config.validation_cells, config.seed, plan.weights)  # fmt: skip
        trained = train(recipe, settings, job.output.uri, partial(track_step, job.tracker), workers=config.workers,
                        gpus=config.gpus, threads=config.threads, job="pretrain", unit="cells")  # fmt: skip
        write_weights(job, start, trained.weights, config.recipe(), config.seed)
        report = pretrain_report(trained, settings, objectives, plan.run, cells, plan.genes, tokens.refused)
        return job.finish(report, drawer(trained.history, trained.outcome["scores"]), rows=sum(cells),
                          refusals=tokens.quarantined)  # fmt: skip


if __name__ == "__main__":
    main(PretrainJob, run, "pretrain")
