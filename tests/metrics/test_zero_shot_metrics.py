"""Ranked guesses against scikit-learn, and resamples against their own rows."""

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    recall_score,
    top_k_accuracy_score,
)

from xfm.metrics.calibration import reliability
from xfm.metrics.classification import bootstrap_class_recall
from xfm.metrics.classification import confusion_matrix as counted
from xfm.metrics.resampling import GroupDraws
from xfm.metrics.zero_shot import bootstrap_ranked, confused_pairs, is_hit


def ranked(n=300, n_classes=8, seed=0):
    """Truth, logits that know a little of it, and the five best classes."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, n_classes, n)
    logits = rng.normal(size=(n, n_classes)) + 1.2 * np.eye(n_classes)[truth]
    return truth, logits, np.argsort(-logits, axis=1)[:, :5]


def test_scores_are_those_of_scikit_learn():
    truth, logits, top = ranked()
    found = bootstrap_ranked(truth, top, 8, GroupDraws(np.arange(300), 0, 20))
    assert found["accuracy"].value == pytest.approx(accuracy_score(truth, top[:, 0]))
    assert found["balanced_accuracy"].value == pytest.approx(balanced_accuracy_score(truth, top[:, 0]))
    assert found["acc5"].value == pytest.approx(top_k_accuracy_score(truth, logits, k=5))
    assert "ece" not in found
    for k in range(1, 6):
        assert is_hit(truth, top, k).mean() == pytest.approx(top_k_accuracy_score(truth, logits, k=k))


def test_with_five_classes_nobody_is_praised_for_naming_all_of_them():
    truth, _, top = ranked(n_classes=5)
    assert "acc5" not in bootstrap_ranked(truth, top, 5, GroupDraws(np.arange(300), 0, 2))
    truth, _, top = ranked(n_classes=6)
    assert "acc5" in bootstrap_ranked(truth, top, 6, GroupDraws(np.arange(300), 0, 2))


def test_too_few_guesses_are_an_error():
    with pytest.raises(ValueError, match="first 5 guesses"):
        is_hit(np.zeros(3, int), np.zeros((3, 2), int), 5)


def error_of(table):
    """Guo et al., equation 3."""
    held = table.rows > 0
    return np.average(abs(table.accuracy - table.confidence)[held], weights=table.rows[held])


@pytest.mark.usefixtures("bootstrap_of_few_groups")
def test_draws_are_scores_of_the_drawn_groups():
    truth, _, top = ranked(90)
    rng = np.random.default_rng(3)
    groups, confidence = np.arange(90) // 6, rng.random(90)
    draws = GroupDraws(groups, 5, 7)
    found = bootstrap_ranked(truth, top, 8, draws, confidence)
    errors = []
    for number, weights in enumerate(np.vstack(list(draws.blocks()))):
        rows = np.repeat(np.arange(90), weights[groups])
        assert found["acc5"].draws[number] == pytest.approx(is_hit(truth[rows], top[rows], 5).mean())
        assert found["accuracy"].draws[number] == pytest.approx((truth[rows] == top[rows, 0]).mean())
        errors.append(error_of(reliability(confidence[rows], (truth == top[:, 0])[rows])))
    value = error_of(reliability(confidence, truth == top[:, 0]))
    assert found["ece"].value == pytest.approx(value)
    np.testing.assert_allclose(found["ece"].draws, np.array(errors) - np.mean(errors) + value, atol=1e-9)


def test_recall_of_each_class_is_that_of_scikit_learn():
    truth, _, top = ranked()
    found = bootstrap_class_recall(truth, top[:, 0], 9, GroupDraws(np.arange(300), 0, 30))
    expected = recall_score(truth, top[:, 0], labels=range(8), average=None)
    np.testing.assert_allclose([one.value for one in found[:8]], expected)
    assert np.isnan(found[8].value)  # a class that nobody is of
    assert all(np.nanmin(one.draws) <= one.value <= np.nanmax(one.draws) for one in found[:8])


def test_counts_are_those_of_scikit_learn_and_mistakes_are_sorted():
    truth, _, top = ranked()
    counts = counted(truth, top[:, 0], 8)
    np.testing.assert_array_equal(counts, confusion_matrix(truth, top[:, 0], labels=range(8)))
    by_hand = np.array([[5, 3, 0], [1, 9, 3], [0, 0, 4]])
    pairs = confused_pairs(by_hand, 9)
    assert [(pair.truth, pair.predicted, pair.rows) for pair in pairs] == [(0, 1, 3), (1, 2, 3), (1, 0, 1)]
    assert pairs[0].share == pytest.approx(3 / 8)
    assert len(confused_pairs(by_hand, 2)) == 2
