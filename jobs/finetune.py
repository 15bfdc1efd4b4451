"""Fine-tunes a pretrained network to tell classes apart, on Ray Train; the test rows are read once.

    python jobs/finetune.py --source.kind hub_text --source.path reviews/ --split split --task.label label \
        --backbone.kind hf_text --backbone.checkpoint DIR --workers 2 --output runs/sentiment
    python jobs/embed.py ... --backbone.kind hf_text --backbone.checkpoint runs/sentiment/checkpoint
"""

from pydantic import PositiveInt

from xfm.engine.finetune_config import FinetuneConfig
from xfm.engine.job import main


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
    from xfm.engine import session
    from xfm.engine.finetune import finetune, plan_finetuning, prepare
    from xfm.engine.finetune_seeds import finetune_seeds
    from xfm.engine.planning import describe_plan

    plan = plan_finetuning(config)
    if config.dry_run:
        return session.print_plan(describe_plan(plan, 1, 128, 4, config.workers or 1, config.gpus))
    prepared = prepare(config, plan, config.output)
    with session.open_job(config, prepared.plan.run, joint=True) as job:
        return (
            finetune(config, prepared, job)
            if config.seeds == 1
            else finetune_seeds(config, prepared, job, config.seeds)
        )


if __name__ == "__main__":
    main(FinetuneJob, run, "finetune")
