"""A search on Ray Tune: trials side by side on the cluster, as many as fit.

Ray Tune decides what runs when, which trials are given up and which values come next (`search.py`); trials keep
their own checkpoints (`trial.py`), and the book (`trial_log.py`) says what has been done. The same command on the
same OUTPUT goes on from the book. Ray Tune leaves its own records, some of them pickled, in OUTPUT/tune: nothing reads
them, so who can write there cannot run code here.
"""

import logging
import os
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import yaml

from xfm.core.errors import EnvironmentProblem, Refused
from xfm.core.parts import TRAIN, VALIDATION
from xfm.core.storage import below, open_storage
from xfm.engine.cluster import connect
from xfm.engine.planning import ShardPlan
from xfm.engine.session import OpenJob, open_job, print_plan
from xfm.engine.train import TrainingPlace, place
from xfm.studies.tune.config import Asha, TuneJob
from xfm.studies.tune.report import drawer, tune_report
from xfm.studies.tune.search import Halving, LogCallback, Make, TrialSource
from xfm.studies.tune.space import Space, parse_space
from xfm.studies.tune.space_check import with_values
from xfm.studies.tune.target import JOBS, SearchTarget, searched_job, watch_of
from xfm.studies.tune.trial import run_trial
from xfm.studies.tune.trial_log import TrialLog
from xfm.studies.tune.trials import Aim, Trial, best_of, front_of, trials_table
from xfm.track.redact import redact

logger = logging.getLogger(__name__)

NAME = "tune"  # the folder below OUTPUT that belongs to Ray Tune
BEST, FRONT = "best.yaml", "front"  # presets below OUTPUT
MAX_FAILURES = 2  # of a trial's process; each continues from its last checkpoint
ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # files of numbers that the book has
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would end every trial as if it had finished
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial may fail before it has measured anything
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def run_tune(config: TuneJob) -> int:
    """Tokenises, searches, writes best.yaml, trials.parquet and report; returns the exit code."""
    space = parse_space(config.space)
    place = {name: value for name, value in (("workers", config.workers), ("gpus", config.gpus)) if value}
    sections = {"finetune": config.finetune, "pretrain": config.pretrain}
    searched = searched_job(sections, config.output, config.metric, config.also, place)
    searched.check(space, config.seed)
    given, aim = searched.given, searched.aim
    plan = searched.plan()
    if config.dry_run:
        return print_plan(describe_search(plan, space, config.trials, aim))
    run = run_of(plan, config, searched)
    with open_job(config, run, joint=True) as job:
        prepared = searched.prepare(plan, job.output.uri)
        defaults = {field: searched.value_of(field) for field in space.fields}
        book = TrialLog(job.output.uri, aim, config.trials, job.tracker, defaults)
        run_search(
            space, book, partial(searched.trained_of, prepared), searcher=config.searcher, seed=config.seed,
            halve=config.asha,
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


def run_search(
    space: Space,
    book: TrialLog,
    make: Make,
    *,
    searcher: str,
    seed: int,
    halve: Asha | None,
    epochs: float,
    concurrent: int | None,
    workers: int | None,
    gpus: float,
    threads: int,
    attempt: int = 1,
) -> None:
    """Runs what the book still lacks.

    Args:
        space: what is drawn.
        book: of the search.
        make: drawn values to what is trained; called on the driver.
        searcher: "tpe" or "random".
        seed: of the values.
        halve: None lets every trial run to its end.
        epochs: most that a trial may have.
        concurrent: trials side by side at most; by default as many as fit.
        workers, gpus, threads: of a trial, as for `xfm.engine.train.place`; one worker unless more are asked for.
        attempt: which start of the job this is.

    Raises:
        EnvironmentProblem: not a single trial fits, or Ray Tune gave up.
    """
    left = len(book.unfinished) + len(book.undrawn)
    if book.trials:
        logger.info("tune: %d trials are in the book already, %d are left to run", len(book.trials), left)
    if not left:
        return
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    connect()
    from ray import tune

    where = place(workers or 1, gpus, threads)
    together = min(left, side_by_side(where, concurrent))
    logger.info("tune: %d trials, %d side by side (%s, %d CPUs each)", left, together, where.device, where.cpus)
    trainable = tune.with_parameters(run_trial, uri=book.uri, place=where, aim=book.aim)
    tuner = tune.Tuner(
        tune.with_resources(trainable, _resources(where)),
        tune_config=tune.TuneConfig(
            search_alg=TrialSource(space, book, make, searcher, seed),
            scheduler=Halving(book, epochs, halve.grace_epochs, halve.reduction) if halve else None,
            num_samples=left,
            max_concurrent_trials=together,
            trial_dirname_creator=lambda trial: trial.config["drawn"].trial.name,
        ),
        run_config=tune.RunConfig(
            name=f"attempt-{attempt}",
            storage_path=below(book.uri, NAME),
            callbacks=[LogCallback(book)],
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            verbose=0,
        ),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's and Optuna's inner life
        try:
            tuner.fit()
        except tune.TuneError as problem:
            raise EnvironmentProblem(f"Ray Tune ended the search: {problem}. What was reached is kept: the same "
                                     "command continues") from problem  # fmt: skip


def side_by_side(where: TrainingPlace, asked: int | None) -> int:
    """Trials that fit into the cluster at once, no more than asked for."""
    import ray

    have = ray.cluster_resources()  # type: ignore[no-untyped-call]
    fit = int(have.get("CPU", 0) // (where.workers * where.cpus))
    if where.gpus:
        fit = min(fit, int(have.get("GPU", 0.0) / (where.workers * where.gpus) + 1e-9))
    fit = max(1, fit)
    if asked is not None and asked > fit:
        logger.info("tune: --concurrent %d do not fit into this cluster; %d run side by side", asked, fit)
    return min(asked or fit, fit)


def _resources(where: TrainingPlace) -> dict[str, float]:
    """Of a trial's own process. With several workers it only waits for them: what it claimed would be theirs."""
    if where.workers > 1:
        return {"cpu": 0, "memory": 1}  # Tune takes no claim for nothing: a byte
    return {"cpu": where.cpus} | ({"gpu": where.gpus} if where.gpus else {})


def run_of(plan: ShardPlan, config: TuneJob, searched: SearchTarget) -> dict[str, Any]:
    """The content of run.json: of the job that is searched, with how it is searched.

    Args:
        plan: of the job that is searched.
        config: of the search.
        searched: the job.
    """
    own = {name: value for name, value in config.recipe().items() if name not in (*JOBS, "workers", "gpus")}
    recipe = plan.run["recipe"] | {"job": NAME, "config": searched.given.recipe(), "search": own}
    shown = config.model_dump(mode="json", exclude=set(JOBS))
    settings = plan.run["settings"] | {"output": shown["output"], "search": shown}
    return plan.run | {"job": NAME, "recipe": recipe, "settings": settings}


def describe_search(plan: ShardPlan, space: Space, trials: int, aim: Aim) -> str:
    """What `--dry-run` prints."""
    rows = "unknown until files are inflated" if plan.rows is None else f"{plan.rows:,}"
    lines = [f"rows     {rows}, those of the test split are dropped", f"trials   {trials}, trial 0 is the job as given"]
    lines += [f"metric   {each.metric}, {each.direction}" for each in aim.each]
    lines += [f"field    {draw.field}: {draw.kind} {list(draw.arguments)}" for draw in space.draws]
    combinations = len(space.grid())
    if combinations > 1:
        lines.append(f"grid     {combinations} combinations, {min(combinations, trials - 1)} of them are tried")
    return "\n".join(lines)


def publish(
    job: OpenJob, book: TrialLog, fields: Sequence[str], defaults: dict[str, Any], searched: SearchTarget
) -> None:
    """OUTPUT/trials.parquet and best.yaml; in a search for two scores front/NNN.yaml, and a word to the trials' runs.

    Raises:
        Refused: NO_TRIAL, none ran to its end.
    """
    trials, aim = book.trials, searched.aim
    job.publish_table("trials.parquet", trials_table(trials, fields, defaults, aim))
    best = best_of(trials, aim)
    if best is None:
        why = next((f"; the first because: {trial.reason}" for trial in trials if trial.reason), "")
        raise Refused("NO_TRIAL", f"none of {len(trials)} trials ran to its end{why}")
    of = f"The best of {len(trials)} trials: {aim.metric} {aim.best(best.history):.6g} (trial {best.number}), "
    job.publish(BEST, preset_of(best, searched, of + "a maximum on the rows it was chosen by.", job.output.place, BEST))
    if aim.also is not None:
        _publish_front(job, book, front_of(trials, aim), searched)


def _publish_front(job: OpenJob, book: TrialLog, front: Sequence[Trial], searched: SearchTarget) -> None:
    """A preset for each trial of the front; those of an earlier front that are beaten by now go."""
    names = {f"{trial.number:03d}.yaml": trial for trial in front}
    storage = open_storage(job.output.uri)
    for name in set(storage.sizes(FRONT)) - set(names):
        storage.remove(f"{FRONT}/{name}")
    for name, trial in names.items():
        values = searched.aim.values(trial.history)
        assert values is not None
        reached = " and ".join(
            f"{aim.metric} {value:.6g}" for aim, value in zip(searched.aim.each, values, strict=True)
        )
        said = (
            f"On the front of {len(book.trials)} trials: {reached} (trial {trial.number}), chosen on validation rows."
        )
        job.publish(f"{FRONT}/{name}", preset_of(trial, searched, said, job.output.place, f"{FRONT}/{name}"))
    book.mark_front({trial.number for trial in front})


def preset_of(trial: Trial, searched: SearchTarget, said: str, place: str, name: str) -> bytes:
    """A preset of the searched job with the settings of a trial.

    Args:
        trial: whose values it has.
        searched: the job.
        said: what the trial reached.
        place: of OUTPUT.
        name: of the file below it.
    """
    settings = with_values(searched.base, trial.values | {"watch": watch_of(searched.aim)})
    # Credentials in an address are never written down; where the result goes is for its user to say.
    kept = redact({name: value for name, value in settings.items() if name not in ("output", "dry_run", "experiment")})
    text = (
        f"# {said}\n"
        "# What it is worth, the test rows say, which the search has not read:\n"
        f"#   python jobs/{searched.word}.py --config {place}/{name} --output OUTPUT\n"
    )
    return (text + yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)).encode()
