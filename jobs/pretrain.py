"""Pretrains on Ray Train: scGPT by masked expression, CLIP on pictures and captions, cells' embeddings on words.

    python jobs/pretrain.py --source.kind census --source.uri STORE --task.kind masked_expression \
        --task.layers 4 --task.dim 64 --task.heads 4 --task.ffn 64 --output runs/small
    python jobs/embed.py ... --backbone.kind scgpt --backbone.checkpoint runs/small/checkpoint

    python jobs/pretrain.py --source.kind digits --split split --task.kind contrastive --output runs/digits
    python jobs/embed.py ... --backbone.kind clip --backbone.checkpoint runs/digits/checkpoint

    python jobs/pretrain.py --source.kind atlas --split split --task.kind alignment --output runs/aligned
    python jobs/finetune.py ... --backbone.kind fusion --backbone.checkpoint runs/aligned/checkpoint
"""

from xfm.engine.job import main
from xfm.engine.pretrain_config import PretrainConfig


class PretrainJob(PretrainConfig):
    """Trains a backbone from scratch, or further, on the rows of a source; backbones read OUTPUT/checkpoint."""


def run(config: PretrainJob) -> int:
    """Tokenises, trains, writes checkpoint and report; returns the exit code."""
    from xfm.engine import session
    from xfm.engine.planning import describe_plan
    from xfm.engine.pretrain import plan_pretraining, pretrain, pretraining_of

    plan = plan_pretraining(config)
    if config.dry_run:
        row_bytes = pretraining_of(config).row_bytes
        return session.print_plan(describe_plan(plan, 1, row_bytes, 1, config.workers, config.gpus))
    with session.open_job(config, plan.run, joint=True) as job:
        return pretrain(config, plan, job)


if __name__ == "__main__":
    main(PretrainJob, run, "pretrain")
