"""Principal component regression: how much of a representation's variance the batch explains.

For each principal component, R squared of a regression on the batch (one-hot, hence the share of variance between
batches); components weigh as much as they vary (Buettner et al., Nature Methods 2019; scib). Kedzierska et al. (Genome
Biology 2025) took 50 components of the representation itself. Since R squared times variance is the variance between
batches, no regression has to be solved.

Reference implementation: scib_metrics.utils.principal_component_regression(categorical=True), pcr_comparison.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xfm.metrics.regression import ratios
from xfm.metrics.resampling import F64, Ints
from xfm.metrics.score_with_note import Measure, Statistic

# Shapes: N cells, D width of the representation, C components, b resamples of one block.
COMPONENTS = 50
BLOCK = 2048  # cells that are float64 at a time


class Coordinates(NamedTuple):
    """Cells along the first principal components."""

    values: F64
    """(N, C), centred."""
    share: float
    """Of all variance that they hold; NaN where there is none."""


def principal_coordinates(representation: NDArray[np.floating[Any]], components: int = COMPONENTS) -> Coordinates:
    """The first components of (N, D) cells, fewer where N or D is smaller; in float64, a block of cells at a time."""
    cells, width = representation.shape
    mean = representation.mean(axis=0, dtype=np.float64)
    if cells < width:
        centred = representation - mean
        spectrum, left = np.linalg.eigh(centred @ centred.T)
        values = (left * np.sqrt(np.maximum(spectrum, 0.0)))[:, : -min(components, cells) - 1 : -1]
    else:
        scatter, blocks = np.zeros((width, width)), range(0, cells, BLOCK)
        for start in blocks:
            block = representation[start : start + BLOCK] - mean
            scatter += block.T @ block
        spectrum, directions = np.linalg.eigh(scatter)
        kept = directions[:, : -min(components, width) - 1 : -1]
        values = np.concatenate([(representation[start : start + BLOCK] - mean) @ kept for start in blocks])
    return Coordinates(values, float(ratios((values**2).sum(), np.maximum(spectrum, 0.0).sum())))


def pcr_measure(representation: NDArray[np.floating[Any]], batch: Ints, groups: Ints) -> Measure:
    """Share of the variance of (N, D) cells that (N,) batches explain, 0 to 1, along the components of all cells.

    NaN where nothing varies. Resamples are weights of (N,) groups.
    """
    values, share = principal_coordinates(representation)
    return Measure(_explained(values, batch, groups), f"{values.shape[1]} components, {share:.0%} of the variance")


def pcr_comparison_measure(
    before: NDArray[np.floating[Any]], after: NDArray[np.floating[Any]], batch: Ints, groups: Ints
) -> Measure:
    """How much less a batch explains after integration: (before - after) / before, and 0 where it explains more.

    scib-metrics' pcr_comparison with 50 components of both; its Benchmarker takes all.
    """
    explained = [_explained(principal_coordinates(matrix).values, batch, groups) for matrix in (before, after)]

    def statistic(weights: NDArray[Any]) -> F64:
        first, second = (each(weights) for each in explained)
        return np.maximum(ratios(first - second, first), 0.0)

    return Measure(statistic, f"{COMPONENTS} components of both at most")


def _explained(values: F64, batch: Ints, groups: Ints) -> Statistic:
    """Variance of (N, C) coordinates between batches over all variance; NaN where a resample holds one batch only."""
    order = np.argsort(batch, kind="stable")
    values, groups = values[order], groups[order]
    squares = (values**2).sum(axis=1)
    starts = [0, *(np.flatnonzero(np.diff(batch[order])) + 1), len(batch)]
    slices = [slice(start, end) for start, end in pairwise(starts)]

    def statistic(weights: NDArray[Any]) -> F64:
        drawn = weights[:, groups].astype(np.float64)
        sums = np.stack([drawn[:, each] @ values[each] for each in slices], axis=1)
        counts = np.stack([drawn[:, each].sum(axis=1) for each in slices], axis=1)
        overall = np.square(sums.sum(axis=1)).sum(axis=1) / counts.sum(axis=1)
        between = ratios(np.square(sums).sum(axis=2), counts).sum(axis=1, where=counts > 0) - overall
        explained = ratios(between, drawn @ squares - overall)
        return np.where((counts > 0).sum(axis=1) > 1, np.maximum(explained, 0.0), np.nan)

    return statistic
