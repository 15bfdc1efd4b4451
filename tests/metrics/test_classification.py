"""Scores of classes against scikit-learn, on whole cells and on every resample of their groups."""

import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, precision_recall_fscore_support

from xfm.metrics.classification import (
    SCORES,
    SYNONYMS,
    bootstrap_scores,
    confusion_of,
    majority,
    per_class,
    score_name,
    scores,
)
from xfm.metrics.resampling import GroupDraws


def reference(truth, predicted):
    """scikit-learn's scores under its own names; recall is computed on its own, not taken for balanced accuracy."""
    macro = precision_recall_fscore_support(
        truth, predicted, average="macro", labels=np.unique(truth), zero_division=0
    )[:3]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # predicted classes that the truth lacks, and a single class
        balanced = balanced_accuracy_score(truth, predicted)
    weighted = precision_recall_fscore_support(
        truth, predicted, average="weighted", labels=np.unique(truth), zero_division=0
    )
    found = dict(zip(("precision", "recall", "f1"), macro, strict=True)) | {"weighted_f1": weighted[2]}
    return found | {"accuracy": accuracy_score(truth, predicted), "balanced_accuracy": balanced}


def noisy(rng, cells, n_classes, right=0.6):
    truth = rng.integers(0, n_classes, cells)
    return truth, np.where(rng.random(cells) < right, truth, rng.integers(0, n_classes, cells))


def one(truth, predicted, n_classes):
    confusion = confusion_of(truth, predicted, n_classes, np.zeros(len(truth), dtype=int), 1)
    return confusion.toarray().reshape(n_classes, n_classes)


CASES = {
    "five classes": (*noisy(np.random.default_rng(0), 300, 5), 5),
    "two classes": (*noisy(np.random.default_rng(1), 40, 2), 2),
    "class 1 absent in truth": (np.array([0, 0, 2, 2, 3]), np.array([0, 1, 2, 1, 3]), 4),
    "class 2 never predicted": (np.array([0, 1, 2, 2, 1]), np.array([0, 1, 0, 1, 0]), 3),
    "one class, all right": (np.array([1, 1, 1]), np.array([1, 1, 1]), 3),
    "one class, some wrong": (np.array([1, 1, 1]), np.array([1, 0, 2]), 3),
    "nothing right": (np.array([0, 1, 0]), np.array([1, 0, 1]), 2),
    "one cell": (np.array([2]), np.array([0]), 3),
    "int8 codes of 60 classes": (*(x.astype(np.int8) for x in noisy(np.random.default_rng(2), 500, 60)), 60),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_scores_are_those_of_scikit_learn(case):
    truth, predicted, n_classes = case
    found, expected = scores(one(truth, predicted, n_classes)), reference(truth, predicted)
    assert tuple(sorted(found)) == tuple(sorted(SCORES))
    for name in (*SCORES, *SYNONYMS):
        assert found[score_name(name)] == pytest.approx(expected[name], abs=1e-12), name


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_scores_of_classes_are_those_of_scikit_learn_where_the_truth_holds_the_class(case):
    truth, predicted, n_classes = case
    found = per_class(one(truth, predicted, n_classes))
    expected = precision_recall_fscore_support(truth, predicted, labels=np.arange(n_classes), zero_division=0)
    held = np.isin(np.arange(n_classes), truth)
    for name, column in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose(found[name][held], column[held], atol=1e-12)
    assert np.isnan([found[name][~held] for name in ("precision", "recall", "f1")]).all()
    assert (found["support"][~held] == 0).all()


def test_confusion_matrices_of_groups_are_sparse_and_those_of_scikit_learn():
    rng = np.random.default_rng(3)
    truth, predicted = noisy(rng, 400, 6)
    codes = rng.integers(0, 30, 400)
    codes[codes == 17] = 18
    found = confusion_of(truth, predicted, 6, codes, 30)
    assert sparse.issparse(found)
    assert found.shape == (30, 36)
    for group in range(30):
        expected = confusion_matrix(truth[codes == group], predicted[codes == group], labels=np.arange(6)) \
            if group != 17 else np.zeros((6, 6))  # fmt: skip
        np.testing.assert_array_equal(found[[group]].toarray().reshape(6, 6), expected)


def test_many_confusion_matrices_are_scored_at_once():
    rng = np.random.default_rng(4)
    stack = rng.integers(0, 5, (3, 2, 4, 4))
    stack[0, 1, 2] = 0  # a class without truth in one of them
    found = scores(stack)
    for place in np.ndindex(3, 2):
        for name, value in scores(stack[place]).items():
            assert found[name][place] == value


def test_without_a_cell_there_is_no_score():
    assert all(np.isnan(value) for value in scores(np.zeros((3, 3))).values())


@pytest.mark.usefixtures("bootstrap_of_few_groups")
@pytest.mark.parametrize("n_groups", [8, 150], ids=["donors", "each cell its own group"])
def test_draws_are_scores_of_cells_repeated_as_often_as_their_group_is_drawn(n_groups):
    rng = np.random.default_rng(5)
    truth, predicted = noisy(rng, 150, 7)
    truth[truth == 6] = 0
    truth[:2] = 6  # rare: some resamples lack it
    draws = GroupDraws(rng.permutation(np.arange(150) % n_groups), seed=0, resamples=70)
    found = bootstrap_scores(truth, predicted, 7, draws)
    expected = reference(truth, predicted)
    lacking = 0
    for number, weights in enumerate(np.vstack(list(draws.blocks()))):
        cells = np.repeat(np.arange(150), weights[draws.codes])
        lacking += 6 not in truth[cells]
        resampled = reference(truth[cells], predicted[cells])
        for name in SCORES:
            assert found[name].draws[number] == pytest.approx(resampled[name], abs=1e-12)
            assert found[name].value == pytest.approx(expected[name], abs=1e-12)
    assert lacking > 0


def test_codes_of_eight_bits_are_scored_as_wide_ones():
    truth, predicted = noisy(np.random.default_rng(7), 400, 60)
    draws = GroupDraws(np.arange(400), seed=0, resamples=5)
    wide, narrow = (bootstrap_scores(*pair, 60, draws)
                    for pair in ((truth, predicted), (truth.astype(np.int8), predicted.astype(np.int8))))  # fmt: skip
    for name in SCORES:
        np.testing.assert_array_equal(narrow[name].draws, wide[name].draws)


def test_two_predictors_meet_the_same_resamples():
    rng = np.random.default_rng(6)
    truth, predicted = noisy(rng, 90, 4)
    draws = GroupDraws(np.arange(90), seed=1, resamples=100)
    first, again = (bootstrap_scores(truth, predicted, 4, draws)["f1"].draws for _ in range(2))
    np.testing.assert_array_equal(first, again)
    # One cell better: no resample is worse, and those without the cell are the same.
    better = predicted.copy()
    wrong = np.flatnonzero(truth != predicted)[0]
    better[wrong] = truth[wrong]
    gain = bootstrap_scores(truth, better, 4, draws)["accuracy"].draws
    gain = gain - bootstrap_scores(truth, predicted, 4, draws)["accuracy"].draws
    drawn = np.vstack(list(draws.blocks()))[:, draws.codes[wrong]]
    np.testing.assert_allclose(gain, drawn / 90, atol=1e-12)


def test_classes_that_are_never_predicted_pull_macro_scores_down_and_accuracy_hardly():
    # 98 cells of class 0, 2 of class 1, all called 0: F1 of class 0 is 2 * 98 / (98 + 100), of class 1 it is 0.
    found = scores(np.array([[98, 0], [2, 0]]))
    assert found["accuracy"] == pytest.approx(0.98)
    assert found["balanced_accuracy"] == pytest.approx(0.5)
    assert found["f1"] == pytest.approx((196 / 198) / 2)
    assert found["precision"] == pytest.approx(0.98 / 2)


def test_the_majority_is_the_most_frequent_class_and_the_first_among_equals():
    assert majority(np.array([3, 1, 3, 0])) == 3
    assert majority(np.array([2, 1, 1, 2])) == 1
    with pytest.raises(ValueError, match="no training cell"):
        majority(np.array([], dtype=int))


def test_unknown_scores_and_impossible_classes_are_refused():
    with pytest.raises(ValueError, match="unknown score 'auroc'; known: accuracy"):
        score_name("auroc")
    cells = np.array([0, 1])
    for truth, predicted in ((np.array([0, 3]), cells), (cells, np.array([-1, 0]))):
        with pytest.raises(ValueError, match="3 classes count from 0"):
            one(truth, predicted, 3)
        with pytest.raises(ValueError, match="3 classes count from 0"):
            bootstrap_scores(truth, predicted, 3, GroupDraws(cells, 0, 5))
    with pytest.raises(ValueError, match="do not match"):
        one(cells, np.array([1]), 3)
