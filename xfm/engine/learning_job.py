"""A job that learns, from its settings to its exit code: what jobs/pretrain.py and jobs/finetune.py call.

With several seeds each has an OUTPUT of its own below the job's, on the same tokens, and an MLflow run under the job's
own. A seed that is done is not done again.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from xfm.core.errors import Refused
from xfm.core.ledger import REPORT
from xfm.core.storage import below, open_storage
from xfm.engine.learn import Prepared, learn, plan_learning, prepare, task_of
from xfm.engine.learn_config import LearnConfig
from xfm.engine.output import Output
from xfm.engine.planning import describe_plan
from xfm.engine.resume_check import check_output
from xfm.engine.session import OpenJob, open_job, print_plan
from xfm.judging.classifier_scores import SCORES
from xfm.judging.seeds import seeds_report
from xfm.track.lineage import run_tags
from xfm.track.redact import redact
from xfm.track.server import tracking_uri

logger = logging.getLogger(__name__)


def run_learning(config: LearnConfig, seeds: int = 1) -> int:
    """The whole job, or what is left of it, for each of so many seeds from config.seed on; returns the exit code."""
    plan = plan_learning(config)
    if config.dry_run:
        row_bytes = task_of(config).row_bytes
        return print_plan(describe_plan(plan, 1, row_bytes, 1, config.workers or 1, config.gpus))
    check_output(config.output, plan.run["recipe"])
    prepared = prepare(config, plan, config.output)
    with open_job(config, prepared.plan.run, joint=True) as job:
        return learn(config, prepared, job) if seeds == 1 else learn_from_seeds(config, prepared, job, seeds)


def learn_from_seeds(config: LearnConfig, prepared: Prepared, job: OpenJob, seeds: int) -> int:
    """Trains what is left of the seeds, of which `config` has the first, and reports their spread; returns the exit
    code.

    Raises:
        Refused: NO_SCORES, the task leaves none whose spread could be told.
    """
    scored = task_of(config).scored
    if scored is None:
        raise Refused("NO_SCORES", f"--seeds: --task.kind {config.task.kind} writes no scores.parquet whose spread "
                      "could be reported. Run it once a seed, each with its own --output")  # fmt: skip
    scores: dict[int, pa.Table] = {}
    for seed in range(config.seed, config.seed + seeds):
        uri = below(job.output.uri, f"seed-{seed}")
        own = config.model_copy(update={"seed": seed, "output": uri})
        if open_storage(uri).read(REPORT) is None:
            with open_seed(own, prepared, job) as child:
                learn(own, prepared, child)
        else:
            logger.info("seed %d is done already", seed)
        scores[seed] = _scores(uri)
    warnings = [*config.notes, *(prepared.rows.warnings if prepared.rows is not None else ())]
    report = seeds_report(scores, *scored, warnings, job.run, prepared.tokens.refused)
    rows = sum(map(sum, prepared.parts.sizes)) + prepared.parts.left_out
    return job.finish(report, rows=rows, refusals=prepared.tokens.quarantined)


@contextmanager
def open_seed(config: LearnConfig, prepared: Prepared, parent: OpenJob) -> Iterator[OpenJob]:
    """A job below another: its own OUTPUT, and a nested MLflow run.

    Raises:
        Refused: the OUTPUT of the seed belongs to another run.
    """
    plan = prepared.plan.run
    run = {
        **plan,
        "recipe": plan["recipe"] | {"config": config.recipe()},
        "settings": redact(config.model_dump(mode="json")),
    }
    with Output(config.output, run, joint=True) as output:
        tags = run_tags(run, output.place)
        tracker = parent.tracker.child(f"seed {config.seed}", key=f"seed-{config.seed}", tags=tags)
        tracker.params(run["settings"])
        try:
            yield OpenJob(output, tracker, run, tracking_uri(parent.output.uri), config.output)
        except BaseException:
            tracker.close("FAILED")
            raise


def _scores(uri: str) -> pa.Table:
    data = open_storage(uri).read(SCORES)
    assert data is not None
    return pq.read_table(pa.BufferReader(data))
