"""Whether two predictors of the same cells differ by more than chance, and many such questions at once.

If two predictors were alike, swapping their predictions of a group would change nothing but luck (approximate
randomisation: Noreen, Computer-Intensive Methods for Testing Hypotheses, 1989). Groups are swapped as a whole, because
cells of one donor are not independent. Where only draws are at hand, p comes from them, and is held to what swapping
so many groups could say. With every cell its own group and accuracy as the score this is McNemar's exact
test. Corrections: Phipson and Smyth, Stat Appl Genet Mol Biol 2010 (a sampled p is never 0); Holm, Scand J Stat 1979.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xfm.metrics.classification import group_counts, score_name, scores_of_counts
from xfm.metrics.resampling import F64, ROUNDING, Ints, percentile_interval, weighted_sums, why_no_interval

# Shapes: N cells, G groups, K classes, B resamples, b permutations of one block.
ENUMERATED = 13  # up to 2**13 = 8192 swaps are listed; that costs less than the usual 9999 random ones
BLOCK = 128
PERMUTATIONS = 9999


class Difference(NamedTuple):
    """A score minus another one, with its paired interval."""

    value: float
    low: float | None  # low, high: None without an interval
    high: float | None
    p: float  # two-sided, of no difference
    why: str = ""  # why there is no interval


def permutation_test(
    truth: Ints,
    predicted_a: Ints,
    predicted_b: Ints,
    n_classes: int,
    codes: Ints,
    metric: str,
    rng: np.random.Generator,
    permutations: int = PERMUTATIONS,
) -> float:
    """Two-sided p of "both predictors are alike", by swapping their predictions of whole groups.

    A group that both predictors count alike is the same swapped or not and is left out. Up to 13 groups that differ are
    swapped in every way and p is exact; more are swapped at random.

    Args:
        truth: (N,) classes, 0 to K - 1.
        predicted_a, predicted_b: (N,) classes that either predictor says.
        codes: (N,) group of each cell.
        metric: a score of `classification.SCORES`, or a synonym.
        permutations: how many random swaps; p is at least 1 / (permutations + 1), and NaN without a cell.
    """
    metric = score_name(metric)
    if len(truth) == 0:
        return float("nan")
    groups, codes = np.unique(codes, return_inverse=True)
    counts_a, counts_b = (
        group_counts(truth, predicted, n_classes, codes, len(groups)) for predicted in (predicted_a, predicted_b)
    )
    change = counts_b - counts_a
    change.eliminate_zeros()
    change = change[np.diff(change.indptr) > 0]
    total_a, total_b = counts_a.sum(axis=0), counts_b.sum(axis=0)

    def difference(swaps: NDArray[Any]) -> F64:
        moved = weighted_sums(swaps, change)
        a, b = (scores_of_counts(*np.split(total, 3, axis=1))[metric] for total in (total_a + moved, total_b - moved))
        return a - b

    differing = change.shape[0]
    as_extreme = abs(difference(np.zeros((1, differing)))[0]) - ROUNDING
    is_listed = differing <= ENUMERATED
    swaps = _every_swap(differing) if is_listed else _random_swaps(differing, rng, permutations)
    found = sum(int((abs(difference(block)) >= as_extreme).sum()) for block in swaps)
    return found / 2**differing if is_listed else (found + 1) / (permutations + 1)


def sign_flip_test(differences: F64, rng: np.random.Generator, permutations: int = PERMUTATIONS) -> float:
    """Two-sided p of "the sum of (G,) differences is 0 but for luck", by turning the signs of groups round.

    Exact where a difference is as likely to be positive as negative (Fisher, The Design of Experiments, 1935, section
    21). Groups without a difference are left out; NaN without a group.
    """
    if not len(differences):
        return float("nan")
    differing = differences[differences != 0]
    size = float(np.abs(differing).sum())
    if not size:
        return 1.0
    total, groups = differing.sum(), len(differing)
    is_listed = groups <= ENUMERATED
    flips = _every_swap(groups) if is_listed else _random_swaps(groups, rng, permutations)
    as_extreme = abs(total) - ROUNDING * size
    found = sum(int((abs(total - 2 * (block @ differing)) >= as_extreme).sum()) for block in flips)
    return found / 2**groups if is_listed else (found + 1) / (permutations + 1)


def least_p(groups: int) -> float:
    """The smallest p that any test of paired groups can give: swapping all groups turns a difference round and swapping
    none keeps it, two of 2**G ways that are always as extreme."""
    return min(1.0, max(2.0 ** (1 - groups), 1 / (PERMUTATIONS + 1)))


def bootstrap_difference(
    draws_a: F64, draws_b: F64, value_a: float, value_b: float, groups: int | None = None
) -> Difference:
    """The difference a - b of two scores with (B,) draws that were made on the same resamples of groups.

    Args:
        groups: how many the draws are over; None where that is not known.

    Returns:
        Difference, 95 % percentile interval, and p: twice the smaller share of draws on one side of 0, a draw added
        to either side so that p is never 0, and never below `least_p`. Over draws that define both scores; p is NaN
        where none does, and 1 where both are the same in all.
    """
    if draws_a.shape != draws_b.shape:
        raise ValueError(f"{len(draws_a)} draws cannot be paired with {len(draws_b)}: both need the same resamples")
    drawn, value = draws_a - draws_b, float(value_a - value_b)
    defined = drawn[np.isfinite(drawn)]
    if why := why_no_interval(drawn, groups):
        same = len(defined) > 0 and bool((np.abs(defined) <= ROUNDING).all())
        return Difference(value, None, None, 1.0 if same else float("nan"), why)
    low, high = percentile_interval(drawn[:, None])[:, 0]
    smaller = min((defined <= ROUNDING).sum(), (defined >= -ROUNDING).sum())
    p = min(1.0, 2 * (int(smaller) + 1) / (len(defined) + 1))
    return Difference(value, float(low), float(high), max(p, least_p(groups)) if groups else p)


def holm(p_values: F64) -> F64:
    """Holm's step-down adjusted p-values: comparing each to alpha bounds the chance of any false claim by alpha.

    (M,) in the same order, at most 1. NaN marks a test that was not made: it stays NaN and is not counted.

    Reference implementation: statsmodels.stats.multitest.multipletests(method="holm").
    """
    adjusted = np.full(len(p_values), np.nan)
    order = np.argsort(p_values, kind="stable")[: int(np.isfinite(p_values).sum())]
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def _every_swap(groups: int) -> Iterator[NDArray[np.uint8]]:
    """All 2**groups choices of groups to swap, one in each row, in blocks."""
    for start in range(0, 2**groups, BLOCK):
        numbers = np.arange(start, min(start + BLOCK, 2**groups))
        yield (numbers[:, None] >> np.arange(groups) & 1).astype(np.uint8)


def _random_swaps(groups: int, rng: np.random.Generator, permutations: int) -> Iterator[NDArray[np.uint8]]:
    """Choices of groups to swap, each group by a fair coin, one in each row, in blocks."""
    for start in range(0, permutations, BLOCK):
        rows, width = min(BLOCK, permutations - start), -(-groups // 8)
        coins = np.frombuffer(rng.bytes(rows * width), dtype=np.uint8).reshape(rows, width)
        yield np.unpackbits(coins, axis=1, count=groups)
