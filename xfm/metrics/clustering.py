"""Does a representation group cells as their labels do? Leiden clusters, silhouettes, graph connectivity.

Definitions are those of scib (Luecken et al., Nature Methods 2022) as scib-metrics computes them: UMAP's graph of 15
neighbours, Leiden (Traag et al., Sci Rep 2019) at ten resolutions, the best of them by NMI. Kedzierska et al. (Genome
Biology 2025) judged scGPT and Geneformer by these scores, with Louvain in place of Leiden.

Nothing is fitted anew in a resample: silhouettes and components are those of all cells, and a resample weighs cells by
how often their group is drawn. NMI and ARI have no draws: clusters are of all groups together, and weighing cells does
not say how others would cluster (such intervals held the truth in .4 to .8 of data sets, in fewer the more groups).

Reference implementations: scib_metrics.nmi_ari_cluster_labels_leiden, graph_connectivity; sklearn.metrics
normalized_mutual_info_score (arithmetic mean, as scib), adjusted_rand_score (Hubert and Arabie, J Classif 1985),
silhouette_score.
"""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, csr_matrix
from scipy.sparse.csgraph import connected_components

from xfm.metrics.neighbours import IN_GRAPH, Neighbours, connectivities, is_constant
from xfm.metrics.resampling import GroupDraws, Ints
from xfm.metrics.score_with_note import CONSTANT, Measure, NotedScore, mean_of_class_means, take
from xfm.metrics.silhouette import silhouette_samples

# Shapes: N cells, D width of the representation, R resolutions, L labels.
# scib-metrics' ten, 0.2 to 2.0. scib itself tries 0.1 to 2.0 in steps of 0.1: twice the work, seldom another result.
RESOLUTIONS = tuple(2 * step / 10 for step in range(1, 11))
SCORES = ("normalized_mutual_info", "adjusted_rand_index", "silhouette_score", "asw_label", "graph_connectivity")
NMI, ARI, SILHOUETTE, ASW, CONNECTIVITY = SCORES


def clustering_scores(
    representation: NDArray[np.floating[Any]],
    found: Neighbours,
    labels: Ints,
    draws: GroupDraws,
    *,
    clusterings: Ints | None = None,
    resolutions: Sequence[float] = RESOLUTIONS,
    seed: int = 0,
) -> dict[str, NotedScore]:
    """How well a representation groups cells of one label.

    A cell without a label helps to build the graph and its clusters, and is left out of every score. NMI of labels by
    chance is above 0, the more so the more clusters there are; ARI is corrected for that.

    Args:
        representation: (N, D).
        found: neighbours of the representation, 15 or more, each cell its own first one.
        labels: (N,) classes, 0 to L - 1; negative where a cell has none.
        draws: the resamples, over the same N cells.
        clusterings: (R, N) what `leiden` returned, where several labels meet one representation.
        resolutions: of the clusterings, or to look for them.
        seed: of Leiden, where no clusterings are given.

    Returns:
        {name of SCORES: score}. A constant representation is one cluster: NMI and ARI are 0, the others undefined.
    """
    if not len(representation) == len(found.indices) == len(labels) == len(draws.codes):
        sizes = [len(representation), len(found.indices), len(labels), len(draws.codes)]
        raise ValueError(f"representation, neighbours, labels and groups of {sizes} cells do not match")
    held = np.flatnonzero(labels >= 0)
    codes, groups = labels[held], draws.codes[held]
    if is_constant(representation):
        undefined = dict.fromkeys([SILHOUETTE, ASW, CONNECTIVITY], Measure(None, CONSTANT))
        return _agreement(codes, np.zeros_like(codes), draws, CONSTANT) | take(undefined, draws)
    if clusterings is None:
        clusterings = leiden(connectivities(found), resolutions, seed)
    best = best_clustering(clusterings[:, held], codes)
    note = f"{clusterings[best].max() + 1} clusters at resolution {resolutions[best]:g}"
    measures = _silhouettes(representation[held], codes, groups, draws.n_groups)
    is_connected = in_largest_component(found, labels)[held]
    reason = "" if len(held) else "no cell has a label"
    connectivity = mean_of_class_means(groups, draws.n_groups, codes, is_connected.astype(np.float64))
    measures |= {CONNECTIVITY: Measure(connectivity if len(held) else None, reason)}
    return _agreement(codes, clusterings[best, held], draws, note) | take(measures, draws)


def leiden(graph: csr_matrix, resolutions: Sequence[float] = RESOLUTIONS, seed: int = 0) -> NDArray[np.int32]:
    """(R, N) Leiden communities by modularity at R resolutions of (N, N) symmetric weights, numbered from 0.

    Each resolution visits cells in an order from the same seed; larger ones give more clusters. igraph draws from a
    generator of our own meanwhile; Python's global one is not touched.
    """
    import igraph

    # Both directions of an edge are kept, as scanpy and scib-metrics do: another order of edges, other clusters.
    network = igraph.Graph.Weighted_Adjacency(graph, mode="directed")
    network.to_undirected(mode="each")
    found = []
    try:
        for resolution in resolutions:
            igraph.set_random_number_generator(random.Random(seed))
            communities = network.community_leiden("modularity", weights="weight", resolution=resolution)
            found.append(communities.membership)
    finally:
        igraph.set_random_number_generator(random)  # igraph's default
    return np.array(found, dtype=np.int32)


def best_clustering(clusterings: Ints, labels: Ints) -> int:
    """Which of (R, N) clusterings has the highest NMI with (N,) labels; the first one among equals.

    This looks at the labels, as scib does: the score is what clusters could show, not what they would show unaided.
    """
    from sklearn.metrics import normalized_mutual_info_score

    return int(np.argmax([normalized_mutual_info_score(labels, clusters) for clusters in clusterings]))


def in_largest_component(found: Neighbours, labels: Ints, k: int = IN_GRAPH) -> NDArray[np.bool_]:
    """(N,) whether a cell lies in the largest component of its label, the first among equally large ones.

    Components are strong ones of the directed graph from each cell to its k nearest, itself included, among cells of
    one label; their share, averaged over labels, is scib's graph connectivity. Cells without a label (negative) are
    False.
    """
    cells, used = len(labels), found.first(k).indices
    start = np.repeat(np.arange(cells), used.shape[1])
    is_inside = labels[start] == labels[used.ravel()]
    ends = (start[is_inside], used.ravel()[is_inside])
    edges = csr_array((np.ones(len(ends[0]), dtype=np.int8), ends), shape=(cells, cells))
    _, component = connected_components(edges, directed=True, connection="strong")
    _, first, sizes = np.unique(component, return_index=True, return_counts=True)
    # The largest component of each label comes first; edges never leave a label.
    order = np.lexsort((first, -sizes, labels[first]))
    _, largest = np.unique(labels[first][order], return_index=True)
    is_largest = np.zeros(len(sizes), dtype=bool)
    is_largest[order[largest]] = True
    out: NDArray[np.bool_] = is_largest[component] & (labels >= 0)
    return out


def _agreement(labels: Ints, clusters: Ints, draws: GroupDraws, note: str) -> dict[str, NotedScore]:
    """NMI and ARI of (n,) labels and clusters, without draws."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    nothing = np.full(draws.resamples, np.nan)
    if len(np.unique(labels)) < 2:
        return dict.fromkeys([NMI, ARI], NotedScore(None, nothing, "fewer than two labels"))
    found = {NMI: normalized_mutual_info_score(labels, clusters), ARI: adjusted_rand_score(labels, clusters)}
    return {name: NotedScore(float(value), nothing, note) for name, value in found.items()}


def _silhouettes(
    representation: NDArray[np.floating[Any]], labels: Ints, groups: Ints, n_groups: int
) -> dict[str, Measure]:
    """The mean silhouette of (n,) labels, as it is and from 0 to 1."""
    found = len(np.unique(labels))
    if not 2 <= found < len(labels):
        reason = "fewer than two labels" if found < 2 else "every cell has a label of its own"
        return dict.fromkeys([SILHOUETTE, ASW], Measure(None, reason))
    mean = mean_of_class_means(groups, n_groups, np.zeros_like(labels), silhouette_samples(representation, labels))
    return {SILHOUETTE: Measure(mean), ASW: Measure(lambda weights: (mean(weights) + 1) / 2)}
