"""One member at work, in the process that Ray gave it: a whole OUTPUT, as its job would have left it.

Its records go to OUTPUT/tracking.jsonl and are not sent from there: the comparison's own process tells them to MLflow
as those of a child (`track.forward`).
"""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from xfm.core.errors import OK, QUARANTINED, EnvironmentProblem, Refused
from xfm.engine.config import JobConfig
from xfm.engine.session import open_job

LOCKED_S = 60.0  # the process of a killed comparison may hold an OUTPUT a little longer
PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class MemberTask:
    """What one member is to do."""

    job: str  # finetune, pretrain or evaluate
    config: Any  # of its job
    prepared: Any  # rows that are ready to be trained on; None for evaluate, which reads its own
    folder: str  # that relative paths mean


@dataclass(frozen=True, slots=True)
class MemberResult:
    """What a member says at its end."""

    code: int  # exit code that its job would have had
    seconds: float  # of this attempt
    refused: tuple[str, str] | None = None  # code and message where it came to nothing

    @property
    def is_finished(self) -> bool:
        """Whether its report is there."""
        return self.refused is None and self.code in (OK, QUARANTINED)


def is_alone(config: JobConfig) -> bool:
    """Whether a member trains inside its own task: one worker, and no GPU."""
    return not config.gpus and (config.workers or 1) == 1


def work_on(work: MemberTask) -> MemberResult:
    """Does it, or what is left of it."""
    started = time.monotonic()
    do = _evaluate if work.job == "evaluate" else _learn
    try:
        with _in_folder(work.folder):
            code = _patiently(lambda: do(work))
    except Refused as problem:
        return MemberResult(4, time.monotonic() - started, (problem.code, problem.message))
    except EnvironmentProblem as problem:
        return MemberResult(5, time.monotonic() - started, ("ENVIRONMENT", str(problem)))
    return MemberResult(code, time.monotonic() - started)


@contextlib.contextmanager
def _in_folder(folder: str) -> Iterator[None]:
    """Raises EnvironmentProblem: relative paths of settings would mean something else here."""
    if not Path(folder).is_dir():
        raise EnvironmentProblem(
            f"the folder {folder}, in which the comparison was started, is not on node {socket.gethostname()}: "
            "relative paths of settings would mean nothing there. Start it in a folder that all nodes share"
        )
    with contextlib.chdir(folder):
        yield


def _patiently(do: Callable[[], int]) -> int:
    """Again, while the process of a killed comparison still holds one of the OUTPUTs: a member may have several."""
    deadline = time.monotonic() + LOCKED_S
    while True:
        try:
            return do()
        except Refused as problem:
            if problem.code != "LOCKED" or time.monotonic() > deadline:
                raise
        time.sleep(PAUSE_S)


def _learn(work: MemberTask) -> int:
    from xfm.engine.learn import learn

    with open_job(work.config, work.prepared.plan.run, joint=True, is_sent=False) as job:
        return learn(work.config, work.prepared, job, in_this_task=is_alone(work.config))


def _evaluate(work: MemberTask) -> int:
    from xfm.studies.evaluate.plan import plan_evaluation
    from xfm.studies.evaluate.run import evaluate
    from xfm.studies.evaluate.source import embedded

    embedding = embedded(work.config, partial(open_job, is_sent=False))
    if embedding.ends:
        return embedding.code
    plan = plan_evaluation(embedding.config)
    with open_job(embedding.config, plan.run, joint=True, is_sent=False) as job:
        return evaluate(plan, job) or embedding.code
