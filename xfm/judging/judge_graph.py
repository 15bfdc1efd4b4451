"""Scores that look at neighbourhoods: clustering, mixing of batches, pseudotime. Neighbours are found once for all."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from xfm.judging.eval_set import EvalSet, Labels
from xfm.judging.score import Score
from xfm.metrics.clustering import ARI, NMI, clustering_scores, leiden
from xfm.metrics.integration import ENTROPY_NEIGHBOURS, PCR, integration_scores
from xfm.metrics.neighbours import IN_GRAPH, Neighbours, connectivities, is_constant, neighbours
from xfm.metrics.resampling import GroupDraws
from xfm.metrics.score_with_note import NotedScore, centred
from xfm.metrics.trajectory import pseudotime, root_cell, trajectory_scores

F32 = NDArray[np.float32]


def judge_graph(vectors: F32, judged: EvalSet, tasks: Sequence[str], labels: Sequence[Labels]) -> Iterator[Score]:
    """Clustering for each label, batch mixing, pseudotime, as far as asked for and possible.

    Args:
        vectors: (N, D).
    """
    is_integrated = "integration" in tasks and judged.batch is not None
    draws = GroupDraws(judged.split.groups, judged.seed, judged.resamples)
    found = neighbours(vectors, ENTROPY_NEIGHBOURS if is_integrated else IN_GRAPH)
    if "clustering" in tasks:
        clusterings = None if is_constant(vectors) else leiden(connectivities(found), seed=judged.seed)
        for label in labels:
            noted = clustering_scores(vectors, found, label.codes, draws, clusterings=clusterings)
            yield from _scores("clustering", label.name, noted, draws, int(np.count_nonzero(label.codes >= 0)))
    if is_integrated:
        yield from _integration(vectors, found, judged, judged.labels[0], draws)
    if "trajectory" in tasks and judged.time is not None:
        yield from _trajectory(vectors, found, judged, draws)


def _integration(vectors: F32, found: Neighbours, judged: EvalSet, label: Labels, draws: GroupDraws) -> Iterator[Score]:
    assert judged.batch is not None
    noted = integration_scores(vectors, found, judged.batch.codes, label.codes, draws)
    cells = int(np.count_nonzero((judged.batch.codes >= 0) & (label.codes >= 0)))
    noted[PCR] = centred(noted[PCR])  # small samples of batches explain a little by chance, twice drawn ones more
    yield from _scores("integration", judged.batch.name, noted, draws, cells)


def _trajectory(vectors: F32, found: Neighbours, judged: EvalSet, draws: GroupDraws) -> Iterator[Score]:
    assert judged.time is not None
    root = root_cell(vectors, times=judged.time, is_root=judged.roots)
    ordered = pseudotime(vectors, root, found=found)
    depth = None if judged.depth is None else np.log(judged.depth)
    cells = int(np.count_nonzero(np.isfinite(judged.time)))
    note = ordered.reason
    if ordered.slow:
        note = f"{ordered.slow} slow diffusion components: scanpy's weights may lose the order, see spearman exact"
    scores = trajectory_scores(ordered.values, judged.time, depth, draws)
    # With the paper's weights of slow components instead of scanpy's: each loses trajectories that the other finds.
    exact = pseudotime(vectors, root, found=found, exact=True) if ordered.slow else ordered
    scores["spearman_exact"] = trajectory_scores(exact.values, judged.time, None, draws)["spearman"]
    for metric, resampled in scores.items():
        value = float(resampled.value) if np.isfinite(resampled.value) else None
        # The bootstrap of medians of few cells lies below their tau: no interval is better than a wrong one.
        drawn = None if metric == "kendall" else resampled.draws
        yield Score("trajectory", judged.time_name, metric, "all", value, drawn, cells, draws.n_groups, note)


def _scores(task: str, label: str, noted: Mapping[str, NotedScore], draws: GroupDraws, cells: int) -> Iterator[Score]:
    for metric, score in noted.items():
        # Clusters are of all groups together: draws of groups do not say how others would cluster.
        drawn = None if metric in (NMI, ARI) else score.draws
        yield Score(task, label, metric, "all", score.value, drawn, cells, draws.n_groups, score.note)
