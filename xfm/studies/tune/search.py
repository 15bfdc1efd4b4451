"""The three parts that Ray Tune is given: which values come next, which trials are given up, and who is told.

Values: `random` draws each trial's by keys (seed, number), `tpe` by a `TreeParzen`; what fits no job, e.g. a width
that its heads do not divide, is drawn again. Giving up: asynchronous successive halving (Li et al., MLSys 2020) as in
Ray's `AsyncHyperBandScheduler`. Trial 0, the job as it was given, is never drawn and never given up: what a search
gains is measured against it.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from ray.tune.search import Searcher

from xfm.core.errors import Refused
from xfm.core.random import key64
from xfm.engine.settings import UsageError
from xfm.studies.tune.space import Draw, Space
from xfm.studies.tune.trial import EPOCH, OBJECTIVE, OBJECTIVES, Drawn
from xfm.studies.tune.trial_log import TrialLog
from xfm.studies.tune.trials import DEFAULT, Aim, Trial
from xfm.training.learner import Recipe
from xfm.training.settings import Settings

Made = tuple[Recipe, Settings]
Make = Callable[[Mapping[str, Any]], Made]
STARTUP = 10  # most trials that are drawn at random before anything is modelled; of a short search a third
DRAWS = 50  # of one trial, until its values fit a job
UNFIT = "BAD_SETTINGS"  # code of a refusal that says the same as a `UsageError`


class DriverOnly:
    """Lives on the driver. Ray copies and pickles what it is given, for a restore that never comes."""

    def __deepcopy__(self, _memo: Any) -> Any:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {}


class TrialSource(DriverOnly, Searcher):
    """Hands out trials: those that a kill caught first, then new ones. Every trial is in the book before it starts."""

    def __init__(self, space: Space, book: TrialLog, make: Make, searcher: str, seed: int) -> None:
        super().__init__(metric=OBJECTIVE, mode="max")
        self._space, self._book, self._make, self._seed = space, book, make, seed
        self._waiting = [trial.number for trial in book.unfinished] + book.undrawn
        self._live: dict[str, int] = {}
        self._parzen = TreeParzen(space, book, seed) if searcher == "tpe" and space.free else None

    def suggest(self, trial_id: str) -> Any:
        """What Tune runs next. A trial that cannot be made has failed, and the next one takes its place."""
        while self._waiting:
            number = self._waiting.pop(0)
            trial, made = self._trial(number)
            self._book.start(number)
            if isinstance(made, Exception):
                self._book.end(number, "failed", str(made))
                self._tell(number)
                continue
            self._live[trial_id] = number
            return {"drawn": Drawn(trial, *made)}
        return Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:  # noqa: ARG002
        """TPE learns what the trial told last."""
        if (number := self._live.pop(trial_id, None)) is not None:
            self._tell(number, result)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: a searcher learns from ends."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the book is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Never: see `save`."""

    def _trial(self, number: int) -> tuple[Trial, Made | Exception]:
        """A trial, new or of an earlier start, and what it trains, or why it cannot."""
        if number not in self._book.undrawn:
            trial = self._book.get(number)
            return trial, self._made(trial.values)
        for again in range(DRAWS):
            values = self._values(number, again)
            made = self._made(values)
            if not _is_unfit(made) or number == DEFAULT or not self._space.free:
                break
        return self._book.draw(number, values), made

    def _made(self, values: Mapping[str, Any]) -> Made | Exception:
        try:
            return self._make(values)
        except (Refused, UsageError) as problem:
            return problem

    def _values(self, number: int, again: int) -> dict[str, Any]:
        if number == DEFAULT:
            return {}
        free = self._parzen.suggest(number) if self._parzen else self._space.random(self._seed, number, again)
        return self._space.ordered(free | self._space.fixed(number))

    def _tell(self, number: int, result: Mapping[str, Any] | None = None) -> None:
        if self._parzen is None or number == DEFAULT:
            return
        told = result if result is not None and result.get("ended") != "failed" else {}
        merits = tuple(told[name] for name in OBJECTIVES if name in told)
        self._parzen.tell(number, merits or None)


def _is_unfit(made: Made | Exception) -> bool:
    return isinstance(made, UsageError) or (isinstance(made, Refused) and made.code == UNFIT)


class TreeParzen:
    """A tree-structured Parzen estimator that knows what the book knows.

    Optuna's `TPESampler` (Bergstra et al., NIPS 2011; for two scores Ozaki et al., GECCO 2020) through Ray's
    `OptunaSearch`. NSGA-II, the other sampler for two scores, breeds from generations of 50: a search of 30 trials
    would be over before the first one is. After a kill all trials are drawn again as they were, by
    `points_to_evaluate`, and told what they reached. Draws are keyed by how many trials there were: a new start must
    not draw again what an earlier one drew.
    """

    def __init__(self, space: Space, book: TrialLog, seed: int) -> None:
        from optuna.samplers import TPESampler
        from ray.tune.search.optuna import OptunaSearch

        logging.getLogger("optuna").setLevel(logging.WARNING)
        self._space = space
        self._names = OBJECTIVES[: len(book.aim.each)]
        self._calls: dict[int, str] = {}  # what Optuna knows a trial by: a draw that fitted no job has its own name
        known = [trial for trial in book.trials if trial.number != DEFAULT]
        sampler = TPESampler(
            seed=key64(seed, f"searcher {len(book.trials)}") % 2**32,
            n_startup_trials=max(2, min(STARTUP, book.total // 3)),
        )
        many = len(self._names) > 1
        self._search = OptunaSearch(
            space=OptunaSearch.convert_search_space({draw.field: _domain(draw) for draw in space.free}),
            metric=list(self._names) if many else self._names[0],
            mode=["max"] * len(self._names) if many else "max",
            sampler=sampler,
            points_to_evaluate=[{draw.field: _raw(draw, trial) for draw in space.free} for trial in known],
        )
        for trial in known:
            self.suggest(trial.number)
            if trial.is_over:
                self.tell(trial.number, book.aim.merits(trial.history))
            elif trial.status == "failed" and trial.is_final:
                self.tell(trial.number, None)

    def suggest(self, number: int) -> dict[str, Any]:
        """Values of a trial. Asked again, others: those before fitted no job."""
        before = self._calls.get(number)
        if before is not None:
            self.tell(number, None)
        self._calls[number] = str(number) if before is None else f"{before} again"
        raw = self._search.suggest(self._calls[number])
        assert raw is not None
        told = ((draw, raw[draw.field]) for draw in self._space.free)
        return {draw.field: draw.settled(each) if draw.is_number else draw.arguments[each] for draw, each in told}

    def tell(self, number: int, merits: tuple[float, ...] | None) -> None:
        """What a trial reached, higher is better; None where it failed."""
        result = None if merits is None else dict(zip(self._names, merits, strict=True))
        self._search.on_trial_complete(self._calls[number], result, error=merits is None)


def _domain(draw: Draw) -> Any:
    """As Tune says it. Steps are ours, and values of a list are known by their place: they may be of any type."""
    if not draw.is_number:
        return tune.choice(list(range(len(draw.arguments))))
    low, high = draw.arguments[:2]
    if draw.kind == "randint":
        return tune.randint(low, high)
    return tune.loguniform(low, high) if draw.is_log else tune.uniform(low, high)


def _raw(draw: Draw, trial: Trial) -> Any:
    value = trial.values[draw.field]
    return value if draw.is_number else [repr(each) for each in draw.arguments].index(repr(value))


@dataclass(frozen=True)
class _Known:
    """A trial as the halving knows it: by number, so that a second start of it is no second trial."""

    trial_id: str


class Halving(DriverOnly, AsyncHyperBandScheduler):
    """ASHA over epochs that knows trials of an earlier start, and never gives up trial 0 or a trial at its last epoch.

    Trials have at most `epochs`, and all of them have `grace_epochs`; of `reduction` trials at a rung, one goes on.
    """

    def __init__(self, book: TrialLog, epochs: float, grace_epochs: int, reduction: float) -> None:
        super().__init__(
            time_attr=EPOCH, metric=OBJECTIVE, mode="max", max_t=max(math.ceil(epochs), grace_epochs),
            grace_period=grace_epochs, reduction_factor=reduction, stop_last_trials=False,
        )  # fmt: skip
        for trial in book.trials:
            self._remember(trial, book.aim)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, _known(trial))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if "ended" in result:
            return str(TrialScheduler.CONTINUE)
        verdict = super().on_trial_result(tune_controller, _known(trial), result)
        if trial.config["drawn"].trial.number == DEFAULT or result.get("is_last"):
            return str(TrialScheduler.CONTINUE)
        return str(verdict)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        super().on_trial_complete(tune_controller, _known(trial), result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_remove(tune_controller, _known(trial))

    def _remember(self, trial: Trial, aim: Aim) -> None:
        known: Any = _Known(trial.name)
        controller: Any = None  # only passed on
        super().on_trial_add(controller, known)
        for count, record in enumerate(trial.history, start=1):
            best = aim.best(trial.history[:count])
            assert best is not None  # every record of a history has the metric
            super().on_trial_result(controller, known, {EPOCH: record["epoch"], OBJECTIVE: aim.merit(best)})


def _known(trial: Any) -> Any:
    return _Known(trial.config["drawn"].trial.name)


class LogCallback(DriverOnly, tune.Callback):
    """Writes into the book what Tune hears from the trials, on the driver."""

    def __init__(self, book: TrialLog) -> None:
        self._book = book

    def on_trial_result(self, iteration: int, trials: Sequence[Any], trial: Any, result: Any, **_: Any) -> None:  # noqa: ARG002
        """After the scheduler has seen it: `done` is its verdict."""
        number = trial.config["drawn"].trial.number
        self._book.add(number, result.get("history", []))
        if "ended" in result:
            self._book.end(number, result["ended"], result["reason"], is_final=result["is_final"])
        elif result.get("done"):
            self._book.end(number, "pruned")

    def on_trial_error(self, iteration: int, trials: Sequence[Any], trial: Any, **_: Any) -> None:  # noqa: ARG002
        """It died, more often than it may."""
        text = str(trial.get_error() or "its process died")
        reason = [line.strip() for line in text.splitlines() if line.strip()][-1]
        self._book.end(trial.config["drawn"].trial.number, "failed", reason, is_final=False)
