"""The three parts that Ray Tune is given: which values come next, which trials are given up, and who is told.

Values: `random` draws each trial's by keys (seed, number). `tpe` is Optuna's tree-structured Parzen estimator (Bergstra
et al., NIPS 2011) through Ray's `OptunaSearch`; after a kill it is told all results anew. Giving up: asynchronous
successive halving (Li et al., MLSys 2020) as in Ray's `AsyncHyperBandScheduler`. Trial 0, the job as it was given, is
never drawn and never given up: what a search gains is measured against it.
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
from xfm.engine.search_space import Draw, Space
from xfm.engine.settings import UsageError
from xfm.engine.tune_book import Book
from xfm.engine.tune_trial import EPOCH, OBJECTIVE, Drawn
from xfm.loops.training.learner import Recipe
from xfm.loops.training.settings import Settings
from xfm.loops.tuning.trials import DEFAULT, Aim, Trial, is_over

logger = logging.getLogger(__name__)

Make = Callable[[Mapping[str, Any]], tuple[Recipe, Settings]]
STARTUP = 10  # most trials that TPE draws at random before it models anything; of a short search a third


class _Stays:
    """Lives on the driver. Ray copies and pickles what it is given, for a restore that never comes."""

    def __deepcopy__(self, _memo: Any) -> Any:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Draws(_Stays, Searcher):
    """Hands out trials: those that a kill caught first, then new ones.

    Args:
        space: what is drawn.
        book: of the search; every trial is in it before it starts.
        make: values to what is trained.
        searcher: "tpe" or "random".
        seed: of the values.
    """

    def __init__(self, space: Space, book: Book, make: Make, searcher: str, seed: int) -> None:
        super().__init__(metric=OBJECTIVE, mode="max")
        self._space, self._book, self._make, self._seed = space, book, make, seed
        self._waiting = [trial.number for trial in book.unfinished] + book.undrawn
        self._live: dict[str, int] = {}
        self._asked: set[int] = set()
        self._tpe = _tpe(space, book, seed) if searcher == "tpe" and space.free else None

    def suggest(self, trial_id: str) -> Any:
        """What Tune runs next. A trial that cannot be made has failed, and the next one takes its place."""
        while self._waiting:
            number = self._waiting.pop(0)
            known = {trial.number for trial in self._book.trials}
            trial = self._book.get(number) if number in known else self._book.draw(number, self._values(number))
            self._book.start(number)
            try:
                recipe, settings = self._make(trial.values)
            except (Refused, UsageError) as problem:
                self._book.end(number, "failed", str(problem))
                self._tell(number)
                continue
            self._live[trial_id] = number
            return {"drawn": Drawn(trial, recipe, settings)}
        return Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:  # noqa: ARG002
        """The trial is in the book; TPE learns from there."""
        if (number := self._live.pop(trial_id, None)) is not None:
            self._tell(number, result)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: a searcher learns from ends."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the book is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Never: see `save`."""

    def _values(self, number: int) -> dict[str, Any]:
        if number == DEFAULT:
            return {}
        if self._tpe is None:
            free = self._space.random(self._seed, number)
        else:
            raw = self._tpe.suggest(str(number))
            self._asked.add(number)
            free = {draw.field: _from_raw(draw, raw[draw.field]) for draw in self._space.free}
        return self._space.ordered(free | self._space.fixed(number))

    def _tell(self, number: int, result: Mapping[str, Any] | None = None) -> None:
        if self._tpe is None or number == DEFAULT:
            return
        merit = (result or {}).get(OBJECTIVE)
        if number in self._asked:
            self._asked.discard(number)
            self._tpe.on_trial_complete(str(number), {OBJECTIVE: merit} if merit is not None else None, merit is None)
        elif merit is not None:
            self._tpe.add_evaluated_point(_raw(self._space, self._book.get(number)), merit)


def _tpe(space: Space, book: Book, seed: int) -> Any:
    """OptunaSearch that knows what the book knows. Its draws are keyed by how many there were: a new start must not
    draw again what an earlier one drew."""
    from optuna.samplers import TPESampler
    from ray.tune.search.optuna import OptunaSearch

    logging.getLogger("optuna").setLevel(logging.WARNING)
    sampler = TPESampler(
        seed=key64(seed, f"searcher {len(book.trials)}") % 2**32,
        n_startup_trials=max(2, min(STARTUP, book.total // 3)),
    )
    domains = OptunaSearch.convert_search_space({draw.field: _domain(draw) for draw in space.free})
    search = OptunaSearch(space=domains, metric=OBJECTIVE, mode="max", sampler=sampler)
    for trial in book.trials:
        best = book.aim.best(trial.history)
        if trial.number != DEFAULT and is_over(trial) and best is not None:
            search.add_evaluated_point(_raw(space, trial), book.aim.merit(best))
    return search


def _domain(draw: Draw) -> Any:
    """As Tune says it. Steps are ours, and values of a list are known by their place: they may be of any type."""
    if not draw.is_number:
        return tune.choice(list(range(len(draw.arguments))))
    low, high = draw.arguments[:2]
    if draw.kind == "randint":
        return tune.randint(low, high)
    return tune.loguniform(low, high) if draw.is_log else tune.uniform(low, high)


def _from_raw(draw: Draw, value: Any) -> Any:
    return draw.settled(value) if draw.is_number else draw.arguments[value]


def _raw(space: Space, trial: Trial) -> dict[str, Any]:
    places = {draw.field: [repr(value) for value in draw.arguments] for draw in space.free if not draw.is_number}
    return {
        draw.field: trial.values[draw.field]
        if draw.is_number
        else places[draw.field].index(repr(trial.values[draw.field]))
        for draw in space.free
    }


@dataclass(frozen=True)
class _Known:
    """A trial as the halving knows it: by number, so that a second start of it is no second trial."""

    trial_id: str


class Halving(_Stays, AsyncHyperBandScheduler):
    """ASHA over epochs that knows trials of an earlier start, and never gives up trial 0 or a trial at its last epoch.

    Args:
        book: of the search.
        epochs: most that a trial may have.
        grace_epochs: that every trial has.
        reduction: of so many trials at a rung, one goes on.
    """

    def __init__(self, book: Book, epochs: float, grace_epochs: int, reduction: float) -> None:
        super().__init__(
            time_attr=EPOCH, metric=OBJECTIVE, mode="max", max_t=max(math.ceil(epochs), grace_epochs),
            grace_period=grace_epochs, reduction_factor=reduction, stop_last_trials=False,
        )  # fmt: skip
        for trial in book.trials:
            self._remember(trial, book.aim)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Tune is about to start it."""
        super().on_trial_add(tune_controller, _known(trial))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether it goes on."""
        if "ended" in result:
            return str(TrialScheduler.CONTINUE)
        verdict = super().on_trial_result(tune_controller, _known(trial), result)
        if trial.config["drawn"].trial.number == DEFAULT or result.get("is_last"):
            return str(TrialScheduler.CONTINUE)
        return str(verdict)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """It ended of itself."""
        super().on_trial_complete(tune_controller, _known(trial), result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """It was taken away."""
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


class Clerk(_Stays, tune.Callback):
    """Writes into the book what Tune hears from the trials, on the driver."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002
        trials: Sequence[Any],  # noqa: ARG002
        trial: Any,
        result: dict[str, Any],
        **_: Any,
    ) -> None:
        """After the scheduler has seen it: `done` is its verdict."""
        number = trial.config["drawn"].trial.number
        self._book.add(number, result.get("history", []))
        if "ended" in result:
            self._book.end(number, result["ended"], result["reason"], is_final=result["is_final"])
        elif result.get("done"):
            self._book.end(number, "pruned")

    def on_trial_error(self, iteration: int, trials: Sequence[Any], trial: Any, **_: Any) -> None:  # noqa: ARG002
        """It died, more often than it may."""
        self._book.end(trial.config["drawn"].trial.number, "failed", _reason(trial), is_final=False)


def _reason(trial: Any) -> str:
    """The last line of what Tune keeps of the failure."""
    text = str(trial.get_error() or "its process died")
    return [line.strip() for line in text.splitlines() if line.strip()][-1]
