"""Draws of a score over groups: donors vary, not cells, and every representation meets the same draws.

Cells of one donor resemble each other, so an interval from resampled cells is too narrow; whole groups are drawn
instead. A statistic sees a resample as weights: how often each group counts. Sums over cells are taken once per group
and then weighted, so a resample costs one product.

- FEW groups and more: the bootstrap. As many groups are drawn as there are, with replacement (Davison and Hinkley,
  Bootstrap Methods and their Application, 1997, section 3.8).
- Fewer: the jackknife, as the bootstrap of few groups is too narrow (of macro F1 it covers .77 with three donors where
  .95 is printed). Each group is left out in turn, and a draw is the score plus these changes weighted by one draw of a
  multivariate t, so that the interval is Tukey's: the score ± t x its jackknife error (Bull. Math. Stat. 1958; Efron
  and Stein, Ann. Stat. 1981). Degrees of freedom are those of the effective number of groups (Kish, Survey Sampling,
  1965): where one donor has most cells, five are hardly more than one.
- Fewer than LEAST: none; two donors do not say how much donors vary.

Draw i is a function of (seed, i, sizes of the groups) alone: scores of two representations of the same cells may be
subtracted draw by draw. `jobs/bench_statistics.py` measures how often intervals hold the truth.
"""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import ndtri
from scipy.stats import chi2, qmc, t

from xfm.core.random import rng_for
from xfm.core.report import Estimate

# Shapes: N cells, G groups, B resamples, b resamples of one block, S sums.
F64 = NDArray[np.float64]
U16 = NDArray[np.uint16]
Ints = NDArray[np.integer[Any]]

RESAMPLES = 2000
ROUNDING = 1e-12  # scores equal but for the order of a sum count as equal
BLOCK = 64  # resamples at once: 50,000 groups x 64 x (2 + 8 bytes) are 32 MB
FEW = 50  # groups, below which the jackknife takes the place of the bootstrap
LEAST = 3  # groups that an interval needs


class Resampled(NamedTuple):
    """A score of the data as they are, and of every resample."""

    value: float
    draws: F64  # (B,) NaN where the resample does not define the score; all NaN where there is no interval


class GroupDraws:
    """How often each group counts in each of B resamples; made block by block, never held.

    Attributes:
        codes: (N,) group of each cell, 0 to G - 1, every group present.
        n_groups: G.
        seed: with the number of the resample, the key of a draw.
        resamples: B.
    """

    def __init__(self, codes: Ints, seed: int, resamples: int = RESAMPLES) -> None:
        """Takes (N,) integers that tell groups apart; groups without a cell are never drawn."""
        if codes.ndim != 1 or len(codes) == 0:
            raise ValueError(f"one group code a cell and at least one cell needed, found the shape {codes.shape}")
        _, inverse, self._sizes = np.unique(codes, return_inverse=True, return_counts=True)
        self.codes: NDArray[np.int64] = inverse.astype(np.int64)
        self.n_groups = len(self._sizes)
        self.seed = seed
        self.resamples = resamples

    def blocks(self, size: int = BLOCK) -> Iterator[U16]:
        """Weights of resamples 0 to B - 1 in their order, as (b, G) with b <= size; the same for every size."""
        for start in range(0, self.resamples, size):
            numbers = range(start, min(start + size, self.resamples))
            yield np.vstack([draw_groups(self.n_groups, rng_for(self.seed, f"resample {i}"), 1) for i in numbers])

    @property
    def effective(self) -> float:
        """How many groups of equal size vary as much as these: G for equal sizes, about 1 where one has most cells."""
        return float(self._sizes.sum() ** 2 / np.square(self._sizes, dtype=np.float64).sum())

    @cached_property
    def t_weights(self) -> F64:
        """(B, G) draws of a multivariate t, spread evenly (Sobol' points), each followed by its mirror image: what the
        jackknife's changes are weighted by."""
        points = qmc.Sobol(self.n_groups + 1, rng=rng_for(self.seed, f"jackknife {self.n_groups}"))
        uniform = points.random_base2(int(np.ceil(np.log2(max(self.resamples, 2)))) - 1)
        uniform = np.clip(uniform, 1e-12, 1 - 1e-12)
        freedom = max(self.effective - 1, 1.0)
        drawn = ndtri(uniform[:, :-1]) * np.sqrt(freedom / chi2.ppf(uniform[:, -1:], freedom))
        found: F64 = np.stack([drawn, -drawn], axis=1).reshape(-1, self.n_groups)[: self.resamples]
        return found


def draw_groups(n_groups: int, rng: np.random.Generator, resamples: int) -> U16:
    """(resamples, n_groups) how often each group is drawn when as many as there are get drawn with replacement."""
    drawn = np.empty((resamples, n_groups), dtype=np.uint16)
    for row in drawn:
        row[:] = np.bincount(rng.integers(0, n_groups, n_groups), minlength=n_groups)
    return drawn


def group_sums(codes: Ints, n_groups: int, columns: Any) -> Any:
    """(G, S) sums of (N, S) columns over the cells of each group: an array for an array, csr for scipy.sparse."""
    cells = len(codes)
    if columns.shape[0] != cells:
        raise ValueError(f"{cells} cells have a group, {columns.shape[0]} have columns to sum")
    belongs = sparse.csr_array((np.ones(cells, dtype=np.int64), (codes, np.arange(cells))), shape=(n_groups, cells))
    return belongs @ columns


def weighted_sums(weights: NDArray[Any], sums: Any) -> F64:
    """(B, S) sums of resamples from (B, G) weights of groups and their (G, S) sums, dense or scipy.sparse; exact for
    counts below 2**53."""
    out = np.empty((len(weights), sums.shape[1]))
    is_sparse = sparse.issparse(sums)
    wide = sums.T.astype(np.float64) if is_sparse else np.asarray(sums, dtype=np.float64)
    for start in range(0, len(weights), BLOCK):
        block = weights[start : start + BLOCK].astype(np.float64)
        # Sparse sums are the left factor: a non-zero count then costs one step over contiguous resamples.
        out[start : start + BLOCK] = (wide @ np.ascontiguousarray(block.T)).T if is_sparse else block @ wide
    return out


def bootstrap(
    draws: GroupDraws, statistic: Callable[[NDArray[Any]], dict[str, F64]], *, is_smooth: bool = True
) -> dict[str, Resampled]:
    """Statistics of the data and of every resample.

    Args:
        statistic: (b, G) weights of groups to named (b,) scores, NaN where a score is undefined.
        is_smooth: whether a score changes little by little with the weights. A median does not: the jackknife fails for
            it (Efron and Stein, 1981), and the bootstrap of few groups is widened to the t in its place.

    Returns:
        Each score with its B draws, NaN where there are too few groups.
    """
    observed = statistic(np.ones((1, draws.n_groups), dtype=np.uint16))
    if draws.n_groups < LEAST:
        return {name: Resampled(float(value[0]), np.full(draws.resamples, np.nan)) for name, value in observed.items()}
    if draws.n_groups < FEW and is_smooth:
        without = statistic((1 - np.eye(draws.n_groups)).astype(np.uint16))
        return {name: _jackknife(float(value[0]), without[name], draws) for name, value in observed.items()}
    blocks = [statistic(weights) for weights in draws.blocks()]
    found = {name: np.concatenate([np.empty(0), *(block[name] for block in blocks)]) for name in observed}
    if draws.n_groups < FEW:
        wider = t.ppf(0.975, max(draws.effective - 1, 1.0)) / ndtri(0.975) * np.sqrt(1 + 1 / (draws.n_groups - 1))
        found = {name: float(observed[name][0]) + wider * (each - np.nanmean(each)) for name, each in found.items()}
    return {name: Resampled(float(value[0]), found[name]) for name, value in observed.items()}


def _jackknife(value: float, without: F64, draws: GroupDraws) -> Resampled:
    """Draws from (G,) scores that leave out one group each. Where one of them is undefined, so are the draws: how much
    that group matters is not known."""
    n_groups = draws.n_groups
    change = value - without  # from the score itself, which is wider than from the mean of the others
    return Resampled(value, value + draws.t_weights @ change * np.sqrt((n_groups - 1) / n_groups))


def of_fewer(found: Resampled, sizes: NDArray[Any], draws: GroupDraws) -> Resampled:
    """A score of a part of the cells, its draws widened to the t of the groups that hold the part.

    A class that three of forty donors have is known from three donors.

    Args:
        sizes: (G,) cells of the part in each group; of the truth alone, so that scores of it stay subtractable.
    """
    squares = float(np.square(sizes, dtype=np.float64).sum())
    if not squares or not np.isfinite(found.value):
        return found
    usual = t.ppf(0.975, max(draws.effective - 1, 1.0)) if draws.n_groups < FEW else ndtri(0.975)
    wider = t.ppf(0.975, max(float(sizes.sum()) ** 2 / squares - 1, 1.0)) / usual
    return found._replace(draws=found.value + max(wider, 1.0) * (found.draws - found.value))


def estimate(value: float, draws: F64, groups: int | None = None) -> Estimate | None:
    """A score with its 95 % percentile interval over the draws that define it, or why it has none.

    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

    Args:
        groups: how many the draws are over, for the reason.

    Returns:
        None where the score itself is undefined.
    """
    if not np.isfinite(value):
        return None
    if why := why_no_interval(draws, groups):
        return Estimate(value=float(value), low=None, high=None, why=why)
    low, high = percentile_interval(draws[:, None])[:, 0]
    return Estimate(value=float(value), low=float(low), high=float(high))


def why_no_interval(draws: F64, groups: int | None = None) -> str:
    """Why (B,) draws say nothing of how sure a score is; empty where they do."""
    if groups is not None and groups < LEAST:
        return f"{groups} group{'s' * (groups != 1)}, and it takes {LEAST}"
    defined = draws[np.isfinite(draws)]
    if not len(defined):
        return "undefined without one of the groups"
    if np.ptp(defined) <= ROUNDING:
        return "the same in every group, which does not say how others would be"
    return ""


def ratios(top: F64, bottom: F64) -> F64:
    """top / bottom; NaN where the bottom is 0, as for a correlation that no drawn cell defines."""
    out: F64 = np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom != 0)
    return out


def percentile_interval(drawn: F64, level: float = 0.95) -> F64:
    """(resamples, S) values to the (2, S) ends, over the resamples that define a value; NaN where none does."""
    tail = (1 - level) / 2
    ends = np.full((2, drawn.shape[1]), np.nan)
    some = np.isfinite(drawn).any(axis=0)
    ends[:, some] = np.nanquantile(drawn[:, some], [tail, 1 - tail], axis=0)
    return ends
