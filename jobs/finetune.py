"""Fine-tunes a pretrained network for a task, on Ray Train; the test rows are read once.

    python jobs/finetune.py --source.kind hub_text --source.path reviews/ --split split --task.label label \
        --backbone.kind hf_text --backbone.checkpoint DIR --workers 2 --output runs/sentiment
    python jobs/embed.py ... --backbone.kind hf_text --backbone.checkpoint runs/sentiment/checkpoint
"""

from pydantic import PositiveInt

from xfm.engine.job import main
from xfm.engine.learn_config import FinetuneConfig


class FinetuneJob(FinetuneConfig):
    """Trains a head, and as much of the network below it as is asked for; the best epoch on validation rows is kept."""

    seeds: PositiveInt = 1
    """Train so many times, from --seed on, into OUTPUT/seed-0, seed-1, ...; the report says mean and spread."""

    @classmethod
    def not_in_fingerprint(cls) -> set[str]:
        """More seeds may join those that are done."""
        return super().not_in_fingerprint() | {"seeds"}


def run(config: FinetuneJob) -> int:
    """Tokenises, trains, writes checkpoint, scores and report; returns the exit code."""
    from xfm.engine.learning_job import run_learning

    return run_learning(config, config.seeds)


if __name__ == "__main__":
    main(FinetuneJob, run, "finetune")
