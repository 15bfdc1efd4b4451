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
from xfm.engine.learn_config import PretrainConfig


class PretrainJob(PretrainConfig):
    """Trains a backbone from scratch, or further, on the rows of a source; backbones read OUTPUT/checkpoint."""


def run(config: PretrainJob) -> int:
    """Tokenises, trains, writes checkpoint and report; returns the exit code."""
    from xfm.engine.learning_job import run_learning

    return run_learning(config)


if __name__ == "__main__":
    main(PretrainJob, run, "pretrain")
