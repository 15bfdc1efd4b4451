"""Are batches mixed, and labels kept apart? asw_batch, PCR, iLISI, cLISI, kBET, entropy of batches.

The scores of scib (Luecken et al., Nature Methods 2022) as scib-metrics defines them; entropy is that of cz-benchmarks.
1 is perfectly mixed (cLISI: labels perfectly apart), except for `pcr`, the share of variance that the batch explains,
where 0 is best.

Nothing is fitted anew in a resample: silhouettes, neighbours, tests and components are those of all cells, and a
resample weighs cells by how often their group is drawn. Numbers of batches and labels that a score is scaled by stay
those of all cells.

Reference implementations: scib_metrics silhouette_batch, ilisi_knn, clisi_knn, kbet_per_label, pcr_comparison;
czbenchmarks.metrics.utils.compute_entropy_per_cell, with exact neighbours.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfm.metrics.kbet import kbet_acceptance
from xfm.metrics.lisi import FEWEST_NEIGHBOURS, lisi
from xfm.metrics.neighbours import Neighbours, is_constant, neighbours
from xfm.metrics.pcr import pcr_comparison_measure, pcr_measure
from xfm.metrics.resampling import F64, GroupDraws, Ints
from xfm.metrics.score_with_note import CONSTANT, Measure, NotedScore, mean_of_class_means, median, take
from xfm.metrics.silhouette import silhouette_samples

# Shapes: N cells, D width of the representation, K neighbours, b resamples of one block.
Matrix = NDArray[np.floating[Any]]

ASW_BATCH, PCR, ILISI, CLISI, KBET, ENTROPY = SCORES = (
    "asw_batch",
    "pcr",
    "ilisi",
    "clisi",
    "kbet",
    "entropy_per_cell",
)
PCR_COMPARISON = "pcr_comparison"
LISI_NEIGHBOURS = 90
ENTROPY_NEIGHBOURS = 200
ONE_BATCH = "one batch only"


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
        batch: (N,) integers; negative where a cell has none.
        labels: (N,) integers; negative where a cell has none.
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
    return Measure(statistic, "" if usual else f"{number} neighbours, {LISI_NEIGHBOURS} are usual")


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
