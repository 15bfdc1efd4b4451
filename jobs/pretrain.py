"""Pretrains on Ray Train: scGPT by masked expression, or CLIP on pictures and captions.

    python jobs/pretrain.py --source.kind census --source.uri STORE --task.kind masked_expression \
        --task.layers 4 --task.dim 64 --task.heads 4 --task.ffn 64 --output runs/small
    python jobs/embed.py ... --backbone.kind scgpt --backbone.checkpoint runs/small/checkpoint

    python jobs/pretrain.py --source.kind digits --split split --task.kind contrastive --output runs/digits
    python jobs/embed.py ... --backbone.kind clip --backbone.checkpoint runs/digits/checkpoint
"""

from functools import partial
from typing import Any

from xfm.core import registry
from xfm.engine.config import AnySource, union_of
from xfm.engine.job import main
from xfm.engine.training_config import TrainingConfig

AnyPretraining = union_of(registry.PRETRAINING, "xfm.pretraining", "task")


class PretrainJob(TrainingConfig):
    """Trains a backbone from scratch, or further, on the rows of a source; backbones read OUTPUT/checkpoint."""

    source: AnySource
    """Where rows come from."""

    task: AnyPretraining
    """What is learned, by a network of which size."""

    split: str | None = None
    """Column that says train, validation or test, in place of --validation_fraction; test rows are not read."""


def run(config: PretrainJob) -> int:
    """Tokenises, trains, writes checkpoint and report; returns the exit code."""
    from xfm.engine import session
    from xfm.engine.planning import describe_plan, plan_shards
    from xfm.engine.pretrain import left_out, settings_of, tokenise
    from xfm.engine.train import train
    from xfm.engine.train_watch import track_step
    from xfm.loops.training.tokens import TRAIN, VALIDATION

    pretraining = pretraining_of(config)
    plan = plan_shards("pretrain", config, config.source, pretraining.start)
    if config.dry_run:
        return session.print_plan(describe_plan(plan, 1, pretraining.row_bytes, 1, config.workers, config.gpus))
    with session.open_job(config, plan.run, joint=True) as job:
        parts, tokens = tokenise(pretraining, config.source, plan, config, config.split, job)
        rows = sum(parts.count(TRAIN)), sum(parts.count(VALIDATION))
        settings = settings_of(config, rows[0])
        recipe = pretraining.recipe(parts, plan.weights)
        trained = train(recipe, settings, job.output.uri, partial(track_step, job.tracker, name=pretraining.curve),
                        workers=config.workers, gpus=config.gpus, threads=config.threads, job="pretrain",
                        unit=pretraining.noun)  # fmt: skip
        job.publish_checkpoint(pretraining.kind, partial(pretraining.write, trained.weights))
        report = pretraining.report(trained, settings, plan, rows, tokens.refused)
        report = report.model_copy(update={"warnings": [*report.warnings, *left_out(parts, pretraining)]})
        return job.finish(report, pretraining.drawer(trained, settings), rows=sum(rows),
                          refusals=tokens.quarantined)  # fmt: skip


def pretraining_of(config: PretrainJob) -> Any:
    """What the section `task` stands for (`engine.pretrain.Pretraining`)."""
    from xfm.engine.pretrain_contrastive import ContrastivePretraining
    from xfm.engine.pretrain_masked import MaskedPretraining

    kinds = {"masked_expression": MaskedPretraining, "contrastive": ContrastivePretraining}
    return kinds[config.task.kind](config.task, config.source, config)


if __name__ == "__main__":
    main(PretrainJob, run, "pretrain")
