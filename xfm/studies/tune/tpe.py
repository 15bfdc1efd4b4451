"""A tree-structured TreeParzen estimator that knows what the book knows.

Optuna's `TPESampler` (Bergstra et al., NIPS 2011; for two scores Ozaki et al., GECCO 2020) through Ray's
`OptunaSearch`. NSGA-II, the other sampler for two scores, breeds from generations of 50: a search of 30 trials would be
over before the first one is. After a kill all trials are drawn again as they were, by `points_to_evaluate`, and told
what they reached.
"""

import logging
from typing import Any

from ray import tune

from xfm.core.random import key64
from xfm.studies.tune.space import Draw, Space
from xfm.studies.tune.trial import OBJECTIVES
from xfm.studies.tune.trial_log import TrialLog
from xfm.studies.tune.trials import DEFAULT, Trial

STARTUP = 10  # most trials that are drawn at random before anything is modelled; of a short search a third


class TreeParzen:
    """Draws the free values of trials, and learns from what became of them.

    Its draws are keyed by how many trials there were: a new start must not draw again what an earlier one drew.
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
        return {draw.field: _from_raw(draw, raw[draw.field]) for draw in self._space.free}

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


def _from_raw(draw: Draw, value: Any) -> Any:
    return draw.settled(value) if draw.is_number else draw.arguments[value]


def _raw(draw: Draw, trial: Trial) -> Any:
    value = trial.values[draw.field]
    return value if draw.is_number else [repr(each) for each in draw.arguments].index(repr(value))
