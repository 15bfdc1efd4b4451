"""Searches settings of fine-tuning or pretraining on Ray Tune, on validation rows alone; writes the best as a preset.

    python jobs/tune.py --config jobs/presets/rotten_tomatoes_search.yaml --output runs/search
    python jobs/finetune.py --config runs/search/best.yaml --output runs/best

    finetune: {preset: jobs/presets/rotten_tomatoes_distilbert.yaml, epochs: 8}    # the job; or pretrain: {...}
    space:                                                                         # its fields, and how each is drawn
      lr: {loguniform: [1.0e-5, 1.0e-3]}
      task.dropout: {uniform: [0.0, 0.5]}
      task.mode: {choice: [full, lora]}
    trials: 8
    also: validation_leakage_auroc~0.5                                             # a second score: see the front

Trial 0 is the job as it was given. The same command continues a search that was stopped, and raising `trials` makes it
longer. The rows of the test split are not even stored: OUTPUT/tokens holds none.
"""

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

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
    """Tries settings of a training job, several trials side by side, and reports what that gained."""

    finetune: str | dict[str, Any] | None = None
    """The job that is searched: path of a preset, or its settings, perhaps over a `preset:`."""

    pretrain: str | dict[str, Any] | None = None
    """The same, where a pretraining job is searched."""

    space: dict[str, dict[str, list[Any]]]
    """Fields of that job and how their values are drawn: uniform, loguniform, quniform, qloguniform, randint, choice
    or grid."""

    trials: PositiveInt = Field(16, ge=2)
    """How many, trial 0 included; may be raised later to search on."""

    metric: str | None = None
    """Validation score that decides, e.g. validation_f1, or -validation_loss where lower is better; by default what the
    job itself watches."""

    also: str | None = None
    """A second score to search for at once, written alike, or as NAME~VALUE where nearer to VALUE is better:
    validation_leakage_auroc~0.5. OUTPUT/front then holds a preset for each trial that none beats in both."""

    searcher: Literal["tpe", "random"] = "tpe"
    """What chooses values: a tree-structured TreeParzen estimator (Optuna), or chance."""

    asha: Asha | None = Asha()
    """When trials that are behind are given up; null lets all run to their end, as --also does: a trial that is behind
    in one score may be ahead in the other."""

    concurrent: PositiveInt | None = None
    """Trials side by side at most; by default as many as fit into the cluster."""

    workers: PositiveInt | None = None
    """Processes of each trial that share its batches; by default what the job says, else one."""

    seed: NonNegativeInt = 0
    """Keys what is drawn. The training of every trial has the seed of the job that is searched."""

    @model_validator(mode="before")
    @classmethod
    def _two_scores_have_no_rank(cls, values: Any) -> Any:
        """--also turns halving off where nobody asked for it."""
        if isinstance(values, dict) and values.get("also") is not None:
            return {"asha": None} | values
        return values

    @model_validator(mode="after")
    def _searches_one_job(self) -> Self:
        if (self.finetune is None) == (self.pretrain is None):
            found = "neither" if self.finetune is None else "both"
            raise ValueError(f"give the job that is searched, as finetune: or as pretrain: in --config, found {found}")
        if self.also is not None and self.asha is not None:
            raise ValueError("--asha gives up trials by one score, and --also asks for two; leave out either")
        return self

    @classmethod
    def not_in_fingerprint(cls) -> set[str]:
        """More trials may join those that are done."""
        return super().not_in_fingerprint() | {"trials", "concurrent"}

    @classmethod
    def added_later(cls) -> dict[str, Any]:
        """See `Config`."""
        return {"pretrain": None, "also": None}


def run(config: TuneJob) -> int:
    """Tokenises, searches, writes best.yaml, trials.parquet and report; returns the exit code."""
    from functools import partial

    from xfm.engine import session
    from xfm.studies.tune.report import drawer, tune_report
    from xfm.studies.tune.run import Halve, describe_search, publish, run_of, run_search
    from xfm.studies.tune.space import parse_space
    from xfm.studies.tune.target import searched_job
    from xfm.studies.tune.trial_log import TrialLog
    from xfm.training.tokens import TRAIN, VALIDATION

    space = parse_space(config.space)
    place = {name: value for name, value in (("workers", config.workers), ("gpus", config.gpus)) if value}
    sections = {"finetune": config.finetune, "pretrain": config.pretrain}
    searched = searched_job(sections, config.output, config.metric, config.also, place)
    searched.check(space, config.seed)
    given, aim = searched.given, searched.aim
    plan = searched.plan()
    if config.dry_run:
        return session.print_plan(describe_search(plan, space, config.trials, aim))
    run = run_of(plan, config, searched)
    with session.open_job(config, run, joint=True) as job:
        prepared = searched.prepare(plan, job.output.uri)
        defaults = {field: searched.value_of(field) for field in space.fields}
        book = TrialLog(job.output.uri, aim, config.trials, job.tracker, defaults)
        run_search(
            space, book, partial(searched.trained_of, prepared), searcher=config.searcher, seed=config.seed,
            halve=Halve(**config.asha.model_dump()) if config.asha else None,
            epochs=searched.longest(prepared, space) if config.asha else 0, concurrent=config.concurrent,
            workers=given.workers, gpus=given.gpus, threads=given.threads, attempt=job.attempt,
        )  # fmt: skip
        publish(job, book, space.fields, defaults, searched)
        trials, fields = book.trials, {draw.field: draw.is_log for draw in space.draws}
        rows = sum(prepared.parts.count(TRAIN)), sum(prepared.parts.count(VALIDATION))
        report = tune_report(
            trials, aim, fields, defaults, job.run, rows, prepared.tokens.refused, title=searched.title,
            script=searched.word,
        )  # fmt: skip
        return job.finish(report, drawer(trials, aim, fields, defaults), rows=sum(rows),
                          refusals=prepared.tokens.quarantined)  # fmt: skip


if __name__ == "__main__":
    main(TuneJob, run, "tune")
