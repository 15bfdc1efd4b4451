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
from xfm.engine.cluster import Place, connect
from xfm.engine.learn import Prepared, plan_learning
from xfm.engine.planning import ShardPlan
from xfm.engine.session import OpenJob, open_job, print_plan
from xfm.engine.train import place
from xfm.studies.tune.config import TuneJob
from xfm.studies.tune.report import draw, tune_report
from xfm.studies.tune.search import Halving, LogCallback, TrialSource
from xfm.studies.tune.space import Space, parse_space
from xfm.studies.tune.target import JOBS, TITLES, SearchTarget, searched_job, watch_of, with_values
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
    aim, plan = searched.aim, plan_learning(searched.given)
    if config.dry_run:
        return print_plan(describe_search(plan, space, config.trials, aim))
    with open_job(config, run_of(plan, config, searched), joint=True) as job:
        prepared = searched.prepare(plan, job.output.uri)
        defaults = {field: searched.value_of(field) for field in space.fields}
        book = TrialLog(job.output.uri, aim, config.trials, job.tracker, defaults)
        run_search(config, searched, prepared, space, book, job.attempt)
        publish(job, book, space.fields, defaults, searched)
        trials, fields = book.trials, {draw.field: draw.is_log for draw in space.draws}
        rows = sum(prepared.parts.count(TRAIN)), sum(prepared.parts.count(VALIDATION))
        report = tune_report(
            trials, aim, fields, defaults, job.run, rows, prepared.tokens.refused, title=TITLES[searched.word],
            script=searched.word,
        )  # fmt: skip
        return job.finish(report, partial(draw, trials, aim, fields, defaults), rows=sum(rows),
                          refusals=prepared.tokens.quarantined)  # fmt: skip


def run_search(
    config: TuneJob, searched: SearchTarget, prepared: Prepared, space: Space, book: TrialLog, attempt: int
) -> None:
    """Runs what the book still lacks; `attempt` counts the starts of the job.

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

    given, halve = searched.given, config.asha
    where = place(given.workers or 1, given.gpus, given.threads)
    together = min(left, side_by_side(where, config.concurrent))
    logger.info("tune: %d trials, %d side by side (%s, %d CPUs each)", left, together, where.device, where.cpus)
    trainable = tune.with_parameters(run_trial, uri=book.uri, place=where, aim=book.aim)
    longest = searched.longest(prepared, space) if halve else 0.0
    make = partial(searched.trained_of, prepared)
    tuner = tune.Tuner(
        tune.with_resources(trainable, _resources(where)),
        tune_config=tune.TuneConfig(
            search_alg=TrialSource(space, book, make, config.searcher, config.seed),
            scheduler=Halving(book, longest, halve.grace_epochs, halve.reduction) if halve else None,
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


def side_by_side(where: Place, asked: int | None) -> int:
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


def _resources(where: Place) -> dict[str, float]:
    """Of a trial's own process. With several workers it only waits for them: what it claimed would be theirs."""
    if where.workers > 1:
        return {"cpu": 0, "memory": 1}  # Tune takes no claim for nothing: a byte
    return {"cpu": where.cpus} | ({"gpu": where.gpus} if where.gpus else {})


def run_of(plan: ShardPlan, config: TuneJob, searched: SearchTarget) -> dict[str, Any]:
    """The content of run.json: of the job that is searched, with how it is searched."""
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
    if (combinations := len(space.grid())) > 1:
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
    _publish_preset(job, BEST, best, searched, of + "a maximum on the rows it was chosen by.")
    if aim.also is not None:
        _publish_front(job, book, front_of(trials, aim), searched)


def _publish_front(job: OpenJob, book: TrialLog, front: Sequence[Trial], searched: SearchTarget) -> None:
    """A preset for each trial of the front; those of an earlier front that are beaten by now go."""
    names = {f"{trial.number:03d}.yaml": trial for trial in front}
    storage = open_storage(job.output.uri)
    for name in set(storage.sizes(FRONT)) - set(names):
        storage.remove(f"{FRONT}/{name}")
    for name, trial in names.items():
        scores = zip(searched.aim.each, searched.aim.values(trial.history) or (), strict=True)
        reached = " and ".join(f"{aim.metric} {value:.6g}" for aim, value in scores)
        said = f"On the front of {len(book.trials)} trials: {reached} (trial {trial.number}), chosen on validation rows"
        _publish_preset(job, f"{FRONT}/{name}", trial, searched, f"{said}.")
    book.mark_front({trial.number for trial in front})


def _publish_preset(job: OpenJob, name: str, trial: Trial, searched: SearchTarget, said: str) -> None:
    """A preset of the searched job with the settings of a trial; `said` is what the trial reached."""
    settings = with_values(searched.base, trial.values | {"watch": watch_of(searched.aim)})
    # Credentials in an address are never written down; where the result goes is for its user to say.
    kept = redact({name: value for name, value in settings.items() if name not in ("output", "dry_run", "experiment")})
    text = (
        f"# {said}\n"
        "# What it is worth, the test rows say, which the search has not read:\n"
        f"#   python jobs/{searched.word}.py --config {job.output.place}/{name} --output OUTPUT\n"
    )
    job.publish(name, (text + yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)).encode())
