"""How often intervals hold the truth and how often a verdict is wrong, by simulation: every family of scores, 3 groups
to 40, and cells alone.

    python jobs/bench_statistics.py

Groups (donors) differ in what they hold, in how well their cells are told and in how many there are. The truth of a
score is that of 20,000 groups. Two predictors are drawn alike, so that every "beats" or "worse" is an error: nominal is
.05. For few groups a verdict is not testable, which is no error. Seeds are those of `--seed`; the same seed gives the
same table.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from xfm.core.config import Config
from xfm.core.random import rng_for
from xfm.core.report import Table, markdown_table
from xfm.engine.job import main, say

GROUPS = (3, 5, 8, 12, 20, 40)
ALONE = "cells alone"
CLASSES = 5
TRUTH = 20_000  # groups
Ints, F64 = NDArray[np.int64], NDArray[np.float64]


class Bench(Config):
    """Measures coverage of 95 % intervals and false verdicts of tests at .05."""

    sets: PositiveInt = 400
    """Data sets for each number of groups; of shares near .05 the standard error is then .011."""

    cells: PositiveInt = 30
    """Cells of a group, on average; 300 where cells stand alone."""

    leakage_sets: PositiveInt = 100
    """Data sets for leakage, which fits 25 classifiers for each."""

    seed: int = 0
    """Draws the data."""


class Found(NamedTuple):
    """One predictor of one data set."""

    value: float
    draws: F64


class Cell(NamedTuple):
    """What one family shows for one number of groups."""

    covered: float
    wrong: float | None


def run(bench: Bench) -> int:
    """Prints both tables."""
    from xfm.judging.comparison import ALPHA

    families: Mapping[str, Callable[..., Any]] = {
        "accuracy": _classified("accuracy"), "macro F1": _classified("f1"), "F1 of the rarest class": _rarest,
        "R²": _regressed("r2"), "mean absolute error": _regressed("mae"), "Spearman": _regressed("spearman"),
        "skill (layerwise)": _skilled, "mean of class means (silhouette)": _averaged, "median (iLISI)": _median,
    }  # fmt: skip
    columns = [*map(str, GROUPS), ALONE]
    covered: list[list[Any]] = []
    wrong: list[list[Any]] = []
    for name, family in families.items():
        cells = [_simulated(bench, name, family, groups) for groups in (*GROUPS, None)]
        covered.append([name, *(f"{cell.covered:.3f}" for cell in cells)])
        wrong.append([name, *(f"{cell.wrong:.3f}" if cell.wrong is not None else "" for cell in cells)])
        say(f"{name}: covered {' '.join(covered[-1][1:])}; wrong {' '.join(wrong[-1][1:])}")
    leaks = [_leaks(bench, groups) for groups in GROUPS if groups > 3]
    covered.append(["AUROC of leakage, where nothing leaks", "", *(f"{share:.3f}" for share in leaks), ""])
    seeds: list[list[Any]] = [
        [f"{sd:g}", *(f"{_lucky(bench, sd, seeds):.3f}" for seeds in (2, 3, 5, 10))] for sd in (0.01, 0.02)
    ]
    for table in (
        Table(name="coverage", caption="Share of 95 % intervals that hold the truth, by number of groups",
              columns=["score", *columns], rows=covered),
        Table(name="errors", caption=f"Share of false verdicts (nominal {ALPHA:g}), by number of groups",
              columns=["score", *columns], rows=wrong),
        Table(name="seeds", caption="The same of two trainings that are alike, by number of seeds (20 groups)",
              columns=["sd over seeds", "2", "3", "5", "10"], rows=seeds),
    ):  # fmt: skip
        say(f"\n{table.caption}\n\n{markdown_table(table)}")
    return 0


def _simulated(bench: Bench, name: str, family: Callable[..., Any], groups: int | None) -> Cell:
    """`family` takes (rng, codes, truth) and gives two predictors alike and the p of their difference, or what it knows
    of one; where `truth` is True only the value is taken."""
    from xfm.judging.comparison import BEATS, WORSE, compared
    from xfm.metrics.paired import bootstrap_difference
    from xfm.metrics.resampling import estimate

    rng = rng_for(bench.seed, f"{name} {groups}")
    truth = family(rng, _codes(rng, bench, TRUTH if groups is not None else None, many=True), True)[0].value
    held, false, tests = [], 0, 0
    for _ in range(bench.sets):
        codes = _codes(rng, bench, groups)
        n_groups = len(np.unique(codes))
        own, other, p = family(rng, codes, False)
        found = estimate(*own, n_groups)
        if found is not None and found.low is not None and found.high is not None:
            held.append(found.low <= truth <= found.high)
        if other is not None:
            tests += 1
            difference = bootstrap_difference(own.draws, other.draws, own.value, other.value, n_groups)
            test = compared("a", "b", difference, difference.p if p is None else p, n_groups)
            false += test.verdict in (BEATS, WORSE)
    return Cell(float(np.mean(held)) if held else float("nan"), false / tests if tests else None)


def _codes(rng: np.random.Generator, bench: Bench, groups: int | None, *, many: bool = False) -> Ints:
    """(N,) groups of cells; cells alone are groups of one."""
    if groups is None:
        return np.arange(200_000 if many else 300)
    sizes = np.maximum(5, rng.lognormal(np.log(bench.cells), 0.5, groups)).astype(int)
    return np.repeat(np.arange(groups), sizes)


def _effects(rng: np.random.Generator, codes: Ints, *, width: int = 1, sd: float = 0.6) -> F64:
    """(N, width) what a cell has from its group; nothing where cells are alone."""
    groups = int(codes.max()) + 1
    return rng.normal(0, sd, (groups, width))[codes] if groups < len(codes) else np.zeros((len(codes), width))


def _types(rng: np.random.Generator, codes: Ints) -> Ints:
    """(N,) classes, in shares that differ between groups."""
    shares = np.array([0.4, 0.25, 0.2, 0.1, 0.05])
    cumulated = np.cumsum(rng.dirichlet(shares * 8, int(codes.max()) + 1), axis=1)[codes]
    if len(np.unique(codes)) == len(codes):
        cumulated = np.broadcast_to(np.cumsum(shares), (len(codes), CLASSES))
    return np.minimum((rng.random((len(codes), 1)) > cumulated).sum(axis=1), CLASSES - 1)


def _guesses(rng: np.random.Generator, codes: Ints, truth: Ints) -> Ints:
    """(N,) a classifier whose skill differs between groups, and between classes of a group."""
    logit = 1.0 + np.array([0.5, 0.3, 0, -0.2, -0.6])[truth] + _effects(rng, codes)[:, 0]
    logit += _effects(rng, codes, width=CLASSES, sd=0.4)[np.arange(len(codes)), truth]
    is_hit = rng.random(len(codes)) < 1 / (1 + np.exp(-logit))
    return np.where(is_hit, truth, (truth + rng.integers(1, CLASSES, len(codes))) % CLASSES)


def _draws(codes: Ints, rng: np.random.Generator, is_truth: bool) -> Any:
    from xfm.metrics.resampling import RESAMPLES, GroupDraws

    return GroupDraws(codes, int(rng.integers(1 << 30)), 1 if is_truth else RESAMPLES)


def _classified(metric: str) -> Callable[..., Any]:
    from xfm.metrics.classification import bootstrap_scores
    from xfm.metrics.paired import permutation_test

    def family(rng: np.random.Generator, codes: Ints, is_truth: bool) -> Any:
        truth, draws = _types(rng, codes), _draws(codes, rng, is_truth)
        a, b = (_guesses(rng, codes, truth) for _ in "ab")
        own, other = (Found(*bootstrap_scores(truth, each, CLASSES, draws)[metric]) for each in (a, b))
        p = None if is_truth else permutation_test(truth, a, b, CLASSES, codes, metric, rng, 999)
        return own, other, p

    return family


def _rarest(rng: np.random.Generator, codes: Ints, is_truth: bool) -> Any:
    from xfm.metrics.classification import bootstrap_class_f1

    truth, draws = _types(rng, codes), _draws(codes, rng, is_truth)
    found = (bootstrap_class_f1(truth, _guesses(rng, codes, truth), CLASSES, draws)[-1] for _ in "ab")
    return (*(Found(*each) for each in found), None)


def _regressed(metric: str) -> Callable[..., Any]:
    from xfm.metrics.regression import bootstrap_regression

    def family(rng: np.random.Generator, codes: Ints, is_truth: bool) -> Any:
        truth, draws = _effects(rng, codes)[:, 0] + rng.normal(size=len(codes)), _draws(codes, rng, is_truth)
        found = []
        for _ in "ab":
            predicted = 0.6 * truth + _effects(rng, codes, sd=0.3)[:, 0] + 0.6 * rng.normal(size=len(codes))
            found.append(Found(*bootstrap_regression(truth, predicted, draws)[metric]))
        return (*found, None)

    return family


def _skilled(rng: np.random.Generator, codes: Ints, is_truth: bool) -> Any:
    """1 - MSE / MSE of a baseline, by the test of layerwise: signs of groups are turned round. Both err alike, so that
    the skill itself is 0 and its verdict is the one that is counted."""
    from xfm.metrics.paired import sign_flip_test
    from xfm.metrics.resampling import bootstrap, group_sums, ratios, weighted_sums

    errors = np.exp(_effects(rng, codes, width=2, sd=0.4)) * rng.gamma(2, 0.5, (len(codes), 2))
    draws = _draws(codes, rng, is_truth)
    sums = group_sums(draws.codes, draws.n_groups, errors)

    def statistic(weights: NDArray[Any]) -> dict[str, F64]:
        own, base = weighted_sums(weights, sums).T
        return {"skill": 1 - ratios(own, base)}

    found = Found(*bootstrap(draws, statistic)["skill"])
    p = None if is_truth else sign_flip_test(sums[:, 1] - sums[:, 0], rng, 999)
    return found, Found(0.0, np.zeros_like(found.draws)), p


def _averaged(rng: np.random.Generator, codes: Ints, is_truth: bool) -> Any:
    from xfm.metrics.resampling import bootstrap
    from xfm.metrics.score_with_note import mean_of_class_means

    types, draws, found = _types(rng, codes), _draws(codes, rng, is_truth), []
    for _ in "ab":
        values = 0.3 + _effects(rng, codes, sd=0.2)[:, 0] + 0.3 * rng.normal(size=len(codes)) - 0.05 * types
        statistic = mean_of_class_means(draws.codes, draws.n_groups, types, values)
        found.append(Found(*bootstrap(draws, lambda weights, of=statistic: {"mean": of(weights)})["mean"]))
    return (*found, None)


def _median(rng: np.random.Generator, codes: Ints, is_truth: bool) -> Any:
    from xfm.metrics.resampling import bootstrap
    from xfm.metrics.score_with_note import median

    draws, found = _draws(codes, rng, is_truth), []
    for _ in "ab":
        values = np.exp(_effects(rng, codes, sd=0.3)[:, 0] + 0.5 * rng.normal(size=len(codes)))
        statistic = median(draws.codes, values)
        drawn = bootstrap(draws, lambda weights, of=statistic: {"median": of(weights)}, is_smooth=False)
        found.append(Found(*drawn["median"]))
    return (*found, None)


def _leaks(bench: Bench, groups: int) -> float:
    """Share of intervals of the AUROC that hold one half where the attribute has no effect on any cell."""
    from xfm.metrics.leakage import leakage, leakage_scores
    from xfm.metrics.resampling import GroupDraws, estimate

    rng, held = rng_for(bench.seed, f"leakage {groups}"), 0
    codes = np.repeat(np.arange(groups), 15)
    attribute = codes % 2
    for _ in range(bench.leakage_sets):
        vectors = rng.normal(size=(groups, 8))[codes] + 0.7 * rng.normal(size=(len(codes), 8))
        read = leakage(vectors, attribute, codes, bench.seed)
        found = estimate(*leakage_scores(read, attribute, GroupDraws(codes, bench.seed))["auroc"], groups)
        assert found is not None
        held += found.ends[0] <= 0.5 <= found.ends[1]
    return held / bench.leakage_sets


def _lucky(bench: Bench, sd: float, seeds: int) -> float:
    """Share of false verdicts between two recipes that are alike, each trained from so many seeds."""
    from xfm.judging.comparison import ALPHA
    from xfm.metrics.paired import bootstrap_difference
    from xfm.metrics.seeds import with_spread

    rng, false, groups = rng_for(bench.seed, f"seeds {sd} {seeds}"), 0, 20
    for _ in range(bench.sets):
        rows = rng.normal(0, 0.005, groups)  # how much more one recipe gets right in each group, by luck of the rows
        draws = rng.multinomial(groups, np.full(groups, 1 / groups), 1000) @ (rows - rows.mean()) / groups
        sides = [list(0.8 + rng.normal(0, sd, seeds)) for _ in "ab"]
        own, other = (float(np.mean(side)) for side in sides)
        own += float(rows.mean())
        found = bootstrap_difference(with_spread(own + draws, sides), np.full(1000, other), own, other, groups)
        false += found.p < ALPHA
    return false / bench.sets


if __name__ == "__main__":
    main(Bench, run, "bench_statistics")
