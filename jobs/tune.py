"""Searches settings of a fine-tuning job on Ray Tune, on validation rows alone; writes the best as a preset.

    python jobs/tune.py --config jobs/presets/rotten_tomatoes_search.yaml --output runs/search
    python jobs/finetune.py --config runs/search/best.yaml --output runs/best

    finetune: {preset: jobs/presets/rotten_tomatoes_distilbert.yaml, epochs: 8}    # the job that is searched
    space:                                                                         # its fields, and how each is drawn
      lr: {loguniform: [1.0e-5, 1.0e-3]}
      task.dropout: {uniform: [0.0, 0.5]}
      task.mode: {choice: [full, lora]}
    trials: 8

Trial 0 is the job as it was given. The same command continues a search that was stopped, and raising `trials` makes it
longer. The rows of the test split are not even stored: OUTPUT/tokens holds none.
"""

from functools import partial
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from xfm.core.config import Config
from xfm.engine.config import JobConfig
from xfm.engine.job import main


class Asha(Config):
    """Asynchronous successive halving."""

    grace_epochs: PositiveInt = 1
    """Epochs that every trial has."""

    reduction: float = Field(3.0, gt=1)
    """Of so many trials at the same epoch, one goes on; asked again after so many times as many epochs."""


class TuneJob(JobConfig):
    """Tries settings of a fine-tuning job, several trials side by side, and reports what that gained."""

    finetune: str | dict[str, Any]
    """The job that is searched: path of a preset, or its settings, perhaps over a `preset:`."""

    space: dict[str, dict[str, list[Any]]]
    """Fields of that job and how their values are drawn: uniform, loguniform, quniform, qloguniform, randint, choice
    or grid."""

    trials: PositiveInt = Field(16, ge=2)
    """How many, trial 0 included; may be raised later to search on."""

    metric: str | None = None
    """Validation score that decides, e.g. validation_f1, or -validation_loss where lower is better; by default what the
    job itself watches."""

    searcher: Literal["tpe", "random"] = "tpe"
    """What chooses values: a tree-structured Parzen estimator (Optuna), or chance."""

    asha: Asha | None = Asha()
    """When trials that are behind are given up; null lets all run to their end."""

    concurrent: PositiveInt | None = None
    """Trials side by side at most; by default as many as fit into the cluster."""

    workers: PositiveInt | None = None
    """Processes of each trial that share its batches; by default what the job says, else one."""

    seed: NonNegativeInt = 0
    """Keys what is drawn. The training of every trial has the seed of the job that is searched."""

    @classmethod
    def neutral_fields(cls) -> set[str]:
        """More trials may join those that are done."""
        return super().neutral_fields() | {"trials", "concurrent"}


def run(config: TuneJob) -> int:
    """Tokenises, searches, writes best.yaml, trials.parquet and report; returns the exit code."""
    from xfm.engine import session
    from xfm.engine.finetune import plan_finetuning
    from xfm.engine.finetune_config import FinetuneConfig
    from xfm.engine.search_space import base_settings, check_space, parse_space, with_values
    from xfm.engine.tune import Halve, describe_search, longest, publish_best, publish_trials, run_of, run_search
    from xfm.engine.tune_book import Book
    from xfm.engine.tune_finetune import config_of, given_job, prepare_search, trained_of, value_of
    from xfm.loops.training.tokens import TRAIN, VALIDATION
    from xfm.loops.tuning.report import drawer, tune_report

    space = parse_space(config.space)
    place = {name: value for name, value in (("workers", config.workers), ("gpus", config.gpus)) if value}
    base = with_values(base_settings(FinetuneConfig, config.finetune), place)
    given, aim = given_job(base, config.output, config.metric)
    check_space(space, FinetuneConfig, partial(config_of, base, config.output, aim), config.seed)
    plan = plan_finetuning(given)
    if config.dry_run:
        return session.print_plan(describe_search(plan, space, config.trials, aim))
    run = run_of(plan, config, given)
    with session.open_job(config, run, joint=True) as job:
        prepared = prepare_search(given, plan, job.output.uri)
        defaults = {field: value_of(given, field) for field in space.fields}
        book = Book(job.output.uri, aim, config.trials, job.tracker, defaults)
        run_search(
            space, book, partial(trained_of, base, config.output, aim, prepared), searcher=config.searcher,
            seed=config.seed, halve=Halve(**config.asha.model_dump()) if config.asha else None,
            epochs=longest(given.epochs, space), concurrent=config.concurrent, workers=given.workers, gpus=given.gpus,
            threads=given.threads, attempt=job.attempt,
        )  # fmt: skip
        trials, fields = book.trials, {draw.field: draw.is_log for draw in space.draws}
        publish_trials(job, trials, space.fields, defaults, aim)
        publish_best(job, trials, base, aim)
        rows = sum(prepared.parts.count(TRAIN)), sum(prepared.parts.count(VALIDATION))
        report = tune_report(trials, aim, fields, defaults, job.run, rows, prepared.tokens.refused)
        return job.finish(report, drawer(trials, aim, fields, defaults), rows=sum(rows),
                          refusals=prepared.tokens.quarantined)  # fmt: skip


if __name__ == "__main__":
    main(TuneJob, run, "tune")
