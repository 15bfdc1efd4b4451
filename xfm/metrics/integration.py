"""Are batches mixed, and labels kept apart? asw_batch, PCR, iLISI, cLISI, kBET, entropy of batches.

The scores of scib (Luecken et al., Nature Methods 2022) as scib-metrics defines them; entropy is that of cz-benchmarks.
1 is perfectly mixed (cLISI: labels perfectly apart), except for `pcr`, the share of variance that the batch explains,
where 0 is best.

Nothing is fitted anew in a resample: silhouettes, neighbours, tests and components are those of all cells, and a
resample weighs cells by how often their group is drawn. Numbers of batches and labels that a score is scaled by stay
those of all cells.

Principal component regression: for each component, R squared of a regression on the batch (one-hot, hence the share of
variance between batches); components weigh as much as they vary (Buettner et al., Nature Methods 2019; scib).
Kedzierska et al. (Genome Biology 2025) took 50 components of the representation itself. Since R squared times variance
is the variance between batches, no regression has to be solved.

Reference implementations: scib_metrics silhouette_batch, ilisi_knn, clisi_knn, kbet_per_label, pcr_comparison,
utils.principal_component_regression(categorical=True); czbenchmarks.metrics.utils.compute_entropy_per_cell, with exact
neighbours.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xfm.metrics.kbet import kbet_acceptance
from xfm.metrics.lisi import FEWEST_NEIGHBOURS, lisi
from xfm.metrics.neighbours import Neighbours, is_constant, neighbours
from xfm.metrics.resampling import F64, GroupDraws, Ints, ratios
from xfm.metrics.score_with_note import CONSTANT, Measure, NotedScore, Statistic, mean_of_class_means, median, take
from xfm.metrics.silhouette import silhouette_samples

# Shapes: N cells, D width of the representation, K neighbours, C components, b resamples of one block.
Matrix = NDArray[np.floating[Any]]

SCORES = ("asw_batch", "pcr", "ilisi", "clisi", "kbet", "entropy_per_cell")
ASW_BATCH, PCR, ILISI, CLISI, KBET, ENTROPY = SCORES
PCR_COMPARISON = "pcr_comparison"
LISI_NEIGHBOURS = 90
ENTROPY_NEIGHBOURS = 200
ONE_BATCH = "one batch only"
COMPONENTS = 50
BLOCK = 2048  # cells that are float64 at a time


def integration_scores(
    representation: Matrix,
    found: Neighbours,
    batch: Ints,
    labels: Ints,
    draws: GroupDraws,
    *,
    before: Matrix | None = None,
) -> dict[str, NotedScore]:
    """How well a representation mixes batches and keeps labels apart.

    Cells without a batch or a label are left out; the neighbours of the others are then sought anew.

    Args:
        representation: (N, D).
        found: 200 neighbours of each cell, itself first; fewer leave entropy undefined, fewer than 90 shrink LISI.
        batch, labels: (N,) integers; negative where a cell has none.
        draws: the resamples, over the same N cells.
        before: (N, D') the data before integration; adds `pcr_comparison`.

    Returns:
        {name of SCORES: score}; what is undefined has a note.

    Raises:
        ValueError: sizes do not match.
    """
    if not len(representation) == len(found.indices) == len(batch) == len(labels) == len(draws.codes):
        sizes = [len(representation), len(found.indices), len(batch), len(labels), len(draws.codes)]
        raise ValueError(f"representation, neighbours, batches, labels and groups of {sizes} cells do not match")
    names = [*SCORES, *([PCR_COMPARISON] if before is not None else [])]
    held = np.flatnonzero((batch >= 0) & (labels >= 0))
    representation = representation[held]
    if len(held) < 2 or is_constant(representation):
        reason = CONSTANT if len(held) > 1 else "fewer than two cells have a batch and a label"
        return take(dict.fromkeys(names, Measure(None, reason)), draws)
    if len(held) < len(batch):
        found = neighbours(representation, found.indices.shape[1])
    batch, labels, groups = _from_zero(batch[held]), _from_zero(labels[held]), draws.codes[held]
    measures = dict.fromkeys(names, Measure(None, ONE_BATCH))
    measures[CLISI] = _lisi_measure(found, labels, groups, is_separation=True)
    if batch.max() > 0:
        measures[ASW_BATCH] = asw_batch_measure(representation, batch, labels, groups, draws.n_groups)
        measures[PCR] = pcr_measure(representation, batch, groups)
        measures[ILISI] = _lisi_measure(found, batch, groups)
        measures[KBET] = _kbet_measure(found, batch, labels, groups, draws.n_groups)
        measures[ENTROPY] = _entropy_measure(found, batch, groups, draws.n_groups)
        if before is not None:
            measures[PCR_COMPARISON] = pcr_comparison_measure(before[held], representation, batch, groups)
    return take(measures, draws)


def asw_batch_measure(representation: Matrix, batch: Ints, labels: Ints, groups: Ints, n_groups: int) -> Measure:
    """1 - |silhouette over batches| within each label, averaged over its cells, then over labels.

    A label of one batch, or with a batch for every cell, does not count.
    """
    values = np.full(len(labels), np.nan)
    for label in range(int(labels.max()) + 1):
        cells = np.flatnonzero(labels == label)
        if 1 < len(np.unique(batch[cells])) < len(cells):
            values[cells] = 1 - abs(silhouette_samples(representation[cells], batch[cells]))
    return _over_labels(values, labels, groups, n_groups, "lie in one batch")


class Coordinates(NamedTuple):
    """Cells along the first principal components."""

    values: F64  # (N, C), centred
    share: float  # of all variance that they hold; NaN where there is none


def principal_coordinates(representation: Matrix, components: int = COMPONENTS) -> Coordinates:
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


def pcr_measure(representation: Matrix, batch: Ints, groups: Ints) -> Measure:
    """Share of the variance of (N, D) cells that (N,) batches explain, 0 to 1, along the components of all cells.

    NaN where nothing varies. Resamples are weights of (N,) groups.
    """
    values, share = principal_coordinates(representation)
    return Measure(_explained(values, batch, groups), f"{values.shape[1]} components, {share:.0%} of the variance")


def pcr_comparison_measure(before: Matrix, after: Matrix, batch: Ints, groups: Ints) -> Measure:
    """How much less a batch explains after integration: (before - after) / before, and 0 where it explains more.

    scib-metrics' pcr_comparison with 50 components of both; its Benchmarker takes all.
    """
    explained = [_explained(principal_coordinates(matrix).values, batch, groups) for matrix in (before, after)]

    def statistic(weights: NDArray[Any]) -> F64:
        first, second = (each(weights) for each in explained)
        return np.maximum(ratios(first - second, first), 0.0)

    return Measure(statistic, f"{COMPONENTS} components of both at most")


def _lisi_measure(found: Neighbours, codes: Ints, groups: Ints, *, is_separation: bool = False) -> Measure:
    """The median LISI, scaled: 1 for all classes everywhere, or, of separation, for one class everywhere."""
    used, classes = found.first(LISI_NEIGHBOURS), int(codes.max()) + 1
    if classes < 2:
        return Measure(None, "fewer than two labels" if is_separation else ONE_BATCH)
    number = used.indices.shape[1]
    if number < FEWEST_NEIGHBOURS:
        return Measure(None, f"{number} neighbours, {FEWEST_NEIGHBOURS} are needed")
    middle = median(groups, lisi(used, codes))

    def statistic(weights: NDArray[Any]) -> F64:
        shown = middle(weights)
        return (classes - shown if is_separation else shown - 1) / (classes - 1)

    usual = number == LISI_NEIGHBOURS
    note = "" if usual else f"{number} neighbours, {LISI_NEIGHBOURS} are usual"
    return Measure(statistic, note, is_smooth=False)


def _kbet_measure(found: Neighbours, batch: Ints, labels: Ints, groups: Ints, n_groups: int) -> Measure:
    """Share of cells that accept the null hypothesis of mixed batches, averaged over labels."""
    values = kbet_acceptance(found, batch, labels)
    return _over_labels(values, labels, groups, n_groups, "cannot be tested (one batch, or fewer than 11 cells)")


def _entropy_measure(found: Neighbours, batch: Ints, groups: Ints, n_groups: int) -> Measure:
    """Entropy of batches among 200 neighbours, 1 for equal shares, averaged over cells."""
    used, batches = found.first(ENTROPY_NEIGHBOURS).indices, int(batch.max()) + 1
    if used.shape[1] < min(ENTROPY_NEIGHBOURS, len(batch)):
        return Measure(None, f"{used.shape[1]} neighbours, {ENTROPY_NEIGHBOURS} are needed")
    places = np.arange(len(batch))[:, None] * batches + batch[used]
    counts = np.bincount(places.ravel(), minlength=len(batch) * batches).reshape(-1, batches)
    shares = counts / used.shape[1]
    logs = np.log(shares, out=np.zeros(shares.shape), where=counts > 0)
    values = -(shares * logs).sum(axis=1) / np.log(batches)
    return Measure(mean_of_class_means(groups, n_groups, np.zeros_like(batch), values))


def _over_labels(values: F64, labels: Ints, groups: Ints, n_groups: int, why: str) -> Measure:
    """The mean over labels of the mean of (N,) values; labels whose values are all NaN do not count."""
    used = np.flatnonzero(np.isfinite(values))
    every, counted = int(labels.max()) + 1, len(np.unique(labels[used]))
    note = f"{every - counted} of {every} labels {why} and do not count" if counted < every else ""
    if counted == 0:
        return Measure(None, f"all labels {why}")
    return Measure(mean_of_class_means(groups[used], n_groups, labels[used], values[used]), note)


def _from_zero(codes: Ints) -> NDArray[np.int64]:
    """(N,) classes renumbered so that every number occurs."""
    return np.unique(codes, return_inverse=True)[1].astype(np.int64)


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
