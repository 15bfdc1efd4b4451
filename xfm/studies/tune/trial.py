"""One trial, in the process that Ray Tune gave it: trains, and tells Tune of every validation.

A trial keeps its checkpoint in OUTPUT/trials/NAME and goes on from there whenever it is started again: after its node
died, or in another run of the driver. What it tells holds all its validations so far, so nothing that the driver missed
is lost.
"""

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, cast

from xfm.core.errors import EnvironmentProblem, Refused
from xfm.core.storage import below
from xfm.engine.cluster import Place
from xfm.engine.train_in_task import state_folder
from xfm.studies.tune.trial_log import FOLDER
from xfm.studies.tune.trials import Aim, Trial
from xfm.training.group import Group
from xfm.training.learner import Learner, Recipe
from xfm.training.settings import VALIDATION, Record, Settings

OBJECTIVE, EPOCH = "objective", "epoch"  # what Tune, its searcher and its scheduler look at
OBJECTIVES = (OBJECTIVE, "objective_beside")  # one for each score that is wanted


@dataclass(frozen=True, repr=False)
class Drawn:
    """A trial on its way to a worker."""

    trial: Trial  # number, values, and what an earlier start of it reached
    recipe: Recipe  # recipe, settings: of its training
    settings: Settings

    def __repr__(self) -> str:
        return self.trial.name


@dataclass(frozen=True, slots=True)
class WithoutOutcome:
    """A recipe whose learner says nothing at the end: what a job does after the last step belongs to no search.

    `Learner.outcome` is the only place where test rows are read, and it may draw maps and project features: time that
    a trial has no use for.
    """

    recipe: Recipe  # of the learner

    def build(self, group: Group, device: str) -> Learner:
        return cast(Learner, _Silent(self.recipe.build(group, device)))


class _Silent:
    """A learner in all but its outcome."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._learner, name)

    def outcome(self, step: int) -> dict[str, Any]:  # noqa: ARG002
        return {}


def run_trial(config: dict[str, Any], uri: str, place: Place, aim: Aim) -> None:
    """Ray Tune's trainable: `config` holds a `Drawn`. More than one worker trains on Ray Train."""
    from torch import OutOfMemoryError

    drawn: Drawn = config["drawn"]
    teller = _Teller(drawn, aim)
    try:
        train = _train_alone if place.workers == 1 else _train_together
        train(drawn, uri, place, teller)
    except Refused as problem:
        teller.end("failed", str(problem))
    except (EnvironmentProblem, MemoryError, OutOfMemoryError) as problem:
        teller.end("failed", f"{type(problem).__name__}: {problem}", is_final=False)
    else:
        teller.end("finished")


class _Teller:
    """Tells Tune what is new."""

    def __init__(self, drawn: Drawn, aim: Aim) -> None:
        self.aim, self.steps = aim, drawn.settings.steps
        self.history = {record["step"]: record for record in drawn.trial.history}

    def add(self, *records: Record) -> None:
        """Those with a validation.

        Raises:
            Refused: BAD_METRIC, a score that is wanted is not among those that are measured.
        """
        validated = [record for record in records if any(name.startswith(VALIDATION) for name in record)]
        for record, aim in product(validated, self.aim.each):
            if aim.metric not in record:
                found = ", ".join(name for name in record if name.startswith(VALIDATION))
                raise Refused("BAD_METRIC", f"{aim.metric} was not measured, only {found}")
        self.history |= {record["step"]: record for record in validated}

    def tell(self, **more: Any) -> None:
        """All validations so far, and the best value among them."""
        from ray import tune

        history = [self.history[step] for step in sorted(self.history)]
        news: dict[str, Any] = {"history": history, **more}
        if (merits := self.aim.merits(history)) is not None:
            last = history[-1]
            news |= dict(zip(OBJECTIVES, merits, strict=False))
            news |= {EPOCH: last["epoch"], "is_last": last["step"] >= self.steps}
        tune.report(news)

    def end(self, status: str, reason: str = "", *, is_final: bool = True) -> None:
        self.tell(ended=status, reason=reason, is_final=is_final)


def _train_alone(drawn: Drawn, uri: str, place: Place, teller: _Teller) -> None:
    import torch

    from xfm.training.in_process import train_here
    from xfm.training.state import PROGRESS

    if place.device == "cpu":
        torch.set_num_threads(int(place.cpus))
    with state_folder(below(uri, f"{FOLDER}/{drawn.trial.name}")) as (folder, keep):

        def validated(_: Record, checkpoint: Path) -> None:
            keep()
            teller.add(*json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8"))["history"])
            teller.tell()

        trained = train_here(
            WithoutOutcome(drawn.recipe), drawn.settings, folder, on_checkpoint=validated, device=place.device
        )
    teller.add(*trained.history)


def _train_together(drawn: Drawn, uri: str, place: Place, teller: _Teller) -> None:
    from xfm.engine.train import train

    def validated(record: Record) -> None:
        if teller.aim.metric in record:
            teller.add(record)
            teller.tell()

    trained = train(
        WithoutOutcome(drawn.recipe), drawn.settings, below(uri, f"{FOLDER}/{drawn.trial.name}"), validated,
        workers=place.workers, gpus=place.gpus, threads=int(place.cpus), job=f"tune: {drawn.trial.name}",
    )  # fmt: skip
    teller.add(*trained.history)
