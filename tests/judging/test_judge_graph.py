"""Neighbourhood scores of one representation, against planted truths."""

import numpy as np
import pytest

from tests.judging.evaluate_cases import judged_cells
from xfm.judging.eval_set import Labels
from xfm.judging.judge import judge


def scores_of(vectors, judged, *tasks):
    return {(score.task, score.metric): score for score in judge(vectors, judged, tasks, judged.labels)}


@pytest.fixture
def codes():
    return (np.arange(400) % 4).astype(np.int32)


def test_clusters_that_are_the_labels_agree_with_them(codes):
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((400, 6)) + 30 * np.eye(6)[codes]).astype(np.float32)
    found = scores_of(vectors, judged_cells(codes), "clustering")
    for metric in ("normalized_mutual_info", "adjusted_rand_index", "graph_connectivity"):
        assert found["clustering", metric].value > 0.98
    noise = scores_of(rng.standard_normal((400, 6)).astype(np.float32), judged_cells(codes), "clustering")
    assert noise["clustering", "adjusted_rand_index"].value < 0.05


def test_a_constant_representation_is_one_cluster(codes):
    found = scores_of(np.ones((400, 3), np.float32), judged_cells(codes), "clustering")
    assert found["clustering", "normalized_mutual_info"].value == 0
    assert found["clustering", "silhouette_score"].value is None
    assert "constant" in found["clustering", "silhouette_score"].note


def test_batches_drawn_by_lot_are_mixed_and_shifted_ones_are_not(codes):
    rng = np.random.default_rng(1)
    batch = rng.integers(0, 2, 400).astype(np.int32)
    vectors = (rng.standard_normal((400, 6)) + 6 * np.eye(6)[codes]).astype(np.float32)
    judged = judged_cells(codes, batch=Labels("batch", batch, ("one", "two")))
    mixed = scores_of(vectors, judged, "integration")
    split = scores_of(vectors + 20 * batch[:, None].astype(np.float32), judged, "integration")
    for metric, least, most in (("asw_batch", 0.9, 0.5), ("ilisi", 0.85, 0.05), ("kbet", 0.9, 0.05)):
        assert mixed["integration", metric].value > least
        assert split["integration", metric].value < most
    assert mixed["integration", "pcr"].value < 0.02 < 0.8 < split["integration", "pcr"].value


def test_pseudotime_follows_a_planted_line_and_not_a_shuffled_one():
    rng = np.random.default_rng(2)
    time = np.repeat(np.arange(20.0), 15)
    codes = (np.arange(300) % 3).astype(np.int32)
    line = np.stack([time, *(rng.standard_normal(300) * 0.3 for _ in range(4))], axis=1).astype(np.float32)
    right = scores_of(line, judged_cells(codes, time=time), "trajectory")
    assert right["trajectory", "spearman_exact"].value > 0.9
    assert "slow diffusion component" in right["trajectory", "spearman"].note  # scanpy's rule loses thin lines
    assert right["trajectory", "unreachable"].value == 0
    wrong = scores_of(line, judged_cells(codes, time=rng.permutation(time)), "trajectory")
    assert abs(wrong["trajectory", "spearman_exact"].value) < 0.3


def test_scores_of_all_cells_vary_with_groups_and_not_with_cells(codes):
    """Twenty donors, whose cells are alike: had each cell been drawn, an interval would be far too narrow."""
    rng = np.random.default_rng(4)
    donors = np.arange(400) // 20
    vectors = (np.eye(6)[codes] * 3 + rng.normal(0, 1.5, (20, 6))[donors] + rng.standard_normal((400, 6))).astype(
        np.float32
    )
    batch = Labels("batch", (donors % 2).astype(np.int32), ("one", "two"))
    more = {"batch": batch, "time": rng.random(400)}
    by_donor, by_cell = (
        scores_of(vectors, judged_cells(codes, groups=groups, **more), "clustering", "integration", "trajectory")
        for groups in (donors, None)
    )
    for key in (("clustering", "silhouette_score"), ("integration", "asw_batch"), ("trajectory", "spearman")):
        assert (by_donor[key].groups, by_cell[key].groups) == (20, 400)
        assert by_donor[key].value == pytest.approx(by_cell[key].value)
    wider = (
        by_donor["clustering", "silhouette_score"].draws.std() / by_cell["clustering", "silhouette_score"].draws.std()
    )
    assert wider > 1.5


def test_what_reclusters_has_no_interval(codes):
    rng = np.random.default_rng(0)
    found = scores_of(rng.standard_normal((400, 6)).astype(np.float32), judged_cells(codes), "clustering")
    assert found["clustering", "normalized_mutual_info"].draws is None
    assert found["clustering", "adjusted_rand_index"].draws is None
    assert found["clustering", "silhouette_score"].draws is not None


def test_the_digest_of_cells_holds_their_labels(codes):
    other = np.where(np.arange(400) == 7, (codes + 1) % 4, codes).astype(np.int32)
    assert judged_cells(codes).cells_digest() == judged_cells(codes).cells_digest()
    assert judged_cells(codes).cells_digest() != judged_cells(other).cells_digest()
