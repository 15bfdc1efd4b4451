"""Partitions, silhouettes and components against scikit-learn, scib-metrics and graphs drawn by hand."""

import random
import warnings

import numpy as np
import pytest
import sklearn.metrics
from scipy.sparse import csr_matrix

from xfm.metrics import silhouette as silhouette_module
from xfm.metrics.clustering import RESOLUTIONS, SCORES, best_clustering, clustering_scores, in_largest_component, leiden
from xfm.metrics.neighbours import Neighbours, connectivities, neighbours
from xfm.metrics.resampling import GroupDraws
from xfm.metrics.silhouette import silhouette_samples

LABELS = np.repeat([0, 1, 2], [70, 50, 30])


@pytest.fixture(scope="module")
def scib():
    pytest.importorskip("jax", reason="scib-metrics, the reference, is not installed")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        return pytest.importorskip("scib_metrics", reason="scib-metrics, the reference, is not installed")


def blobs(apart=1.0, seed=0, width=6):
    """Three overlapping labels of 70, 50 and 30 cells."""
    rng = np.random.default_rng(seed)
    centres = apart * rng.normal(size=(3, width))
    return (centres[LABELS] + rng.normal(size=(len(LABELS), width))).astype(np.float32)


def known(found):
    """Our neighbours as scib-metrics'."""
    from scib_metrics.nearest_neighbors import NeighborsResults

    return NeighborsResults(indices=found.indices, distances=found.distances)


# Leiden


def test_two_cliques_joined_by_an_edge_are_two_communities():
    graph = np.kron(np.eye(2), np.ones((6, 6))) - np.eye(12)
    graph[0, 6] = graph[6, 0] = 1
    (clusters,) = leiden(csr_matrix(graph), [1.0])
    np.testing.assert_array_equal(clusters == clusters[0], np.arange(12) < 6)
    (whole,) = leiden(csr_matrix(graph), [0.001])
    assert set(whole) == {0}
    (single,) = leiden(csr_matrix(graph), [100.0])
    assert len(set(single)) == 12


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 42])
def test_the_best_of_ten_resolutions_is_that_of_scib_metrics(scib, seed):
    x = blobs(0.8)
    found = neighbours(x, 15)
    scores = clustering_scores(x, found, LABELS, GroupDraws(np.arange(150), 0, 2), seed=seed)
    theirs = scib.nmi_ari_cluster_labels_leiden(known(found), LABELS, seed=seed)
    assert 0.1 < theirs["nmi"] < 0.9
    assert scores["normalized_mutual_info"].value == pytest.approx(theirs["nmi"])
    assert scores["adjusted_rand_index"].value == pytest.approx(theirs["ari"])


def test_clusters_depend_on_the_seed_alone_and_leave_pythons_generator_as_it_was():
    import igraph

    graph = connectivities(neighbours(blobs(0.3), 15))
    random.seed(7)
    before = random.getstate()
    first = leiden(graph, seed=5)
    assert random.getstate() == before
    random.seed(8)
    np.testing.assert_array_equal(leiden(graph, seed=5), first)
    assert (leiden(graph, seed=6) != first).any()
    assert first.shape == (len(RESOLUTIONS), 150)
    # igraph draws from Python's generator again.
    random.seed(9)
    edges = igraph.Graph.Erdos_Renyi(30, 0.2).get_edgelist()
    random.seed(9)
    assert igraph.Graph.Erdos_Renyi(30, 0.2).get_edgelist() == edges
    random.setstate(before)


def test_a_graph_without_edges_has_a_community_for_each_cell():
    np.testing.assert_array_equal(leiden(csr_matrix((3, 3)), [0.5, 1.0]), [[0, 1, 2], [0, 1, 2]])


def test_the_best_clustering_is_the_one_nearest_to_the_labels():
    labels = np.array([0, 0, 0, 1, 1, 1])
    clusterings = np.array([[0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]])
    assert best_clustering(clusterings, labels) == 2


# Silhouettes


@pytest.mark.parametrize("block", [1024, 64, 7])
@pytest.mark.parametrize("case", ["overlapping", "duplicates", "lone cells", "far away", "two"])
def test_silhouettes_are_those_of_scikit_learn(monkeypatch, block, case):
    monkeypatch.setattr(silhouette_module, "BLOCK", block)
    x, classes = blobs(), np.random.default_rng(1).permutation(LABELS) * 5 - 2
    if case == "duplicates":
        x = np.repeat(x[::5], 5, axis=0)
    if case == "lone cells":
        classes[[3, 77]] = 100, 101
    if case == "far away":
        x = 1e8 + x.astype(np.float64)
    if case == "two":
        classes = (classes > 0).astype(np.int8)
    theirs = sklearn.metrics.silhouette_samples(x.astype(np.float64) - x.mean(axis=0, dtype=np.float64), classes)
    np.testing.assert_allclose(silhouette_samples(x, classes), theirs, atol=1e-6)
    if case != "far away":  # there scikit-learn's own rounding shows
        np.testing.assert_allclose(
            silhouette_samples(x, classes), sklearn.metrics.silhouette_samples(x, classes), atol=1e-5
        )


def test_cells_without_any_distance_have_a_silhouette_of_zero():
    np.testing.assert_array_equal(silhouette_samples(np.ones((6, 3), dtype=np.float32), np.arange(6) // 2), np.zeros(6))


@pytest.mark.parametrize("classes", [np.zeros(5, dtype=int), np.arange(5)])
def test_one_class_or_one_for_each_cell_has_no_silhouette(classes):
    with pytest.raises(ValueError, match=f"2 to 4 classes, found {len(set(classes))}"):
        silhouette_samples(np.eye(5, dtype=np.float32), classes)


# Components


def test_components_of_a_graph_drawn_by_hand_are_strong_and_stay_within_a_label():
    # Label 0: 0 -> 1 -> 2 -> 0, and 3 -> 0 that nothing points back to. Label 1: 4 <-> 5, while 6 meets only label 0.
    arrows = np.array([[0, 1], [1, 2], [2, 0], [3, 0], [4, 5], [5, 4], [6, 3]])
    found = Neighbours(arrows.astype(np.int32), np.tile(np.float32([0, 1]), (7, 1)))
    labels = np.array([0, 0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(in_largest_component(found, labels), [1, 1, 1, 0, 1, 1, 0])
    labels[[1, 6]] = -1
    # Without cell 1 the circle is open: three single cells, of which the first counts.
    np.testing.assert_array_equal(in_largest_component(found, labels), [1, 0, 0, 0, 1, 1, 0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["overlapping", "duplicates", "random labels"])
def test_graph_connectivity_is_that_of_scib_metrics(scib, kind):
    x, labels = blobs(0.5), LABELS
    if kind == "duplicates":
        x = np.repeat(x[::10], 10, axis=0)
    if kind == "random labels":
        labels = np.random.default_rng(0).integers(0, 12, len(x))
    found = neighbours(x, 40)
    ours = clustering_scores(x, found, labels, GroupDraws(np.arange(len(x)), 0, 2), clusterings=LABELS[None])
    theirs = scib.graph_connectivity(known(found.first(15)), labels)
    assert theirs < 1
    assert ours["graph_connectivity"].value == pytest.approx(theirs)


# All together


@pytest.mark.usefixtures("bootstrap_of_few_groups")
def test_scores_and_draws_are_those_of_repeated_cells():
    x = blobs(0.8)
    groups = np.random.default_rng(0).integers(0, 15, len(x))
    draws = GroupDraws(groups, 1, 30)
    found = neighbours(x, 15)
    clusterings = leiden(connectivities(found))
    scores = clustering_scores(x, found, LABELS, draws, clusterings=clusterings)
    best = int(np.argmax([sklearn.metrics.normalized_mutual_info_score(LABELS, each) for each in clusterings]))
    clusters = clusterings[best]
    samples, is_inside = sklearn.metrics.silhouette_samples(x, LABELS), in_largest_component(found, LABELS)
    assert tuple(scores) == SCORES
    assert scores["normalized_mutual_info"].note == f"{clusters.max() + 1} clusters at resolution {RESOLUTIONS[best]:g}"

    for name, score in (("normalized_mutual_info", "normalized_mutual_info_score"),
                        ("adjusted_rand_index", "adjusted_rand_score")):  # fmt: skip
        assert scores[name].value == getattr(sklearn.metrics, score)(LABELS, clusters)
        assert np.isnan(scores[name].draws).all()

    def expected(repeats):
        labels = np.repeat(LABELS, repeats)
        mean = np.repeat(samples, repeats).mean()
        inside = np.repeat(is_inside, repeats)
        return [mean, (mean + 1) / 2, np.mean([inside[labels == label].mean() for label in set(labels)])]

    drawn_ones = [scores[name] for name in SCORES[2:]]
    np.testing.assert_allclose([score.value for score in drawn_ones], expected(np.ones(len(x), int)), atol=1e-6)
    drawn = np.array([expected(row[draws.codes]) for row in np.vstack(list(draws.blocks()))])
    np.testing.assert_allclose(np.stack([score.draws for score in drawn_ones], axis=1), drawn, atol=1e-6)


def test_labels_apart_are_found_and_shuffled_labels_are_not():
    x, draws = blobs(6.0), GroupDraws(np.arange(150), 0, 200)
    found = neighbours(x, 15)
    clusterings = leiden(connectivities(found))
    true = clustering_scores(x, found, LABELS, draws, clusterings=clusterings)
    assert true["normalized_mutual_info"].value == true["adjusted_rand_index"].value == 1
    assert true["graph_connectivity"].value == 1
    assert true["asw_label"].value > 0.8
    shuffled = np.random.default_rng(0).permutation(LABELS)
    chance = clustering_scores(x, found, shuffled, draws, clusterings=clusterings)
    assert abs(chance["adjusted_rand_index"].value) < 0.05  # corrected for chance
    assert chance["silhouette_score"].value < 0


def test_cells_without_a_label_shape_the_clusters_and_enter_no_score():
    x, draws = blobs(0.8), GroupDraws(np.arange(150) // 3, 0, 20)
    found = neighbours(x, 15)
    clusterings = leiden(connectivities(found))
    labels = np.where(np.arange(150) % 4 == 0, -1, LABELS)
    held = labels >= 0
    scores = clustering_scores(x, found, labels, draws, clusterings=clusterings)
    rest = {
        "normalized_mutual_info": max(
            sklearn.metrics.normalized_mutual_info_score(labels[held], each[held]) for each in clusterings
        ),
        "silhouette_score": sklearn.metrics.silhouette_score(x[held], labels[held]),
    }
    for name, value in rest.items():
        assert scores[name].value == pytest.approx(value, abs=1e-6)
    own = clustering_scores(
        x[held],
        neighbours(x[held], 15),
        labels[held],
        GroupDraws(draws.codes[held], 0, 20),
        clusterings=clusterings[:, held],
    )
    np.testing.assert_allclose(scores["silhouette_score"].draws, own["silhouette_score"].draws)


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_a_constant_representation_is_one_cluster_and_has_no_shape(noise):
    rng = np.random.default_rng(0)
    x = np.tile(rng.normal(size=6), (150, 1)).astype(np.float32)
    x += noise * rng.normal(size=x.shape).astype(np.float32)
    scores = clustering_scores(x, neighbours(x, 15), LABELS, GroupDraws(np.arange(150), 0, 20))
    for name in ("normalized_mutual_info", "adjusted_rand_index"):
        assert scores[name].value == 0
    for name in ("silhouette_score", "asw_label", "graph_connectivity"):
        assert scores[name].value is None
        assert np.isnan(scores[name].draws).all()
    assert {score.note for score in scores.values()} == {"constant representation"}


def test_three_distinct_vectors_tell_three_labels_apart():
    x = blobs(6.0)[[0, 80, 130]][LABELS]
    scores = clustering_scores(x, neighbours(x, 15), LABELS, GroupDraws(np.arange(150), 0, 5))
    assert scores["silhouette_score"].value == pytest.approx(1)
    assert scores["normalized_mutual_info"].value > 0.5
    assert 0 < scores["graph_connectivity"].value <= 1


@pytest.mark.parametrize(
    ("labels", "undefined", "reason"),
    [
        (np.zeros(20, dtype=int), 4, "fewer than two labels"),
        (np.arange(20), 2, "every cell has a label of its own"),
        (np.full(20, -1), 5, "no cell has a label"),
    ],
)
def test_what_labels_do_not_define_is_left_out_with_its_reason(labels, undefined, reason):
    x = blobs()[:20]
    scores = clustering_scores(x, neighbours(x, 15), labels, GroupDraws(np.arange(20), 0, 5))
    missing = [score for score in scores.values() if score.value is None]
    assert len(missing) == undefined
    assert reason in {score.note for score in missing}


@pytest.mark.parametrize("cells", [1, 2, 3])
def test_very_few_cells_break_nothing(cells):
    x = blobs()[:cells]
    labels = np.arange(cells) % 2
    scores = clustering_scores(x, neighbours(x, 15), labels, GroupDraws(np.arange(cells), 0, 5))
    assert tuple(scores) == SCORES


def test_sizes_that_do_not_match_are_refused():
    x = blobs()
    with pytest.raises(ValueError, match=r"\[150, 150, 149, 150\] cells do not match"):
        clustering_scores(x, neighbours(x, 15), LABELS[:-1], GroupDraws(np.arange(150), 0, 5))
