"""The probe against scikit-learn's own pipeline, and what it may look at."""

import re

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from xfm.core.parts import TEST, TRAIN, VALIDATION
from xfm.judging import probe
from xfm.judging.probe import COSTS, SVM_COSTS, linear_probe, linear_svm, nearest_neighbours


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 600).astype(np.int32)
    vectors = (rng.standard_normal((600, 8)) * 3 + 0.8 * np.eye(8)[codes] * 3).astype(np.float32)
    parts = np.array([TRAIN, TRAIN, TRAIN, VALIDATION, TEST], np.int8)[np.arange(600) % 5]
    return vectors, codes, parts


def test_predictions_are_those_of_scikit_learn_with_the_chosen_c(cells):
    vectors, codes, parts = cells
    found = linear_probe(vectors, codes, parts, 3)
    cost = float(re.search(r"C = ([\d.]+)", found.note)[1])
    train, test = parts == TRAIN, parts == TEST
    if "each feature scaled" in found.note:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=cost, max_iter=2000, tol=1e-8))
        expected = model.fit(vectors[train], codes[train]).predict(vectors[test])
    else:
        mean = vectors[train].mean(axis=0)
        spread = (vectors[train] - mean).std()
        model = LogisticRegression(C=cost, max_iter=2000, tol=1e-8).fit((vectors[train] - mean) / spread, codes[train])
        expected = model.predict((vectors[test] - mean) / spread)
    assert np.mean(found.test == expected) > 0.99  # a cell on a border may fall to either side


def test_the_svm_is_scikit_learns_pipeline_with_the_c_that_is_best_on_validation(cells):
    vectors, codes, parts = cells
    vectors = vectors * np.logspace(-2, 2, 8, dtype=np.float32)  # unscaled, the last features would drown the others
    train, validation, test = (parts == part for part in (TRAIN, VALIDATION, TEST))

    def fitted(cost):
        model = make_pipeline(StandardScaler(), LinearSVC(C=cost, dual=False, tol=1e-3, random_state=0))
        return model.fit(vectors[train], codes[train])

    by_cost = {cost: f1_score(codes[validation], fitted(cost).predict(vectors[validation]), average="macro")
               for cost in SVM_COSTS}  # fmt: skip
    found = linear_svm(vectors, codes, parts, 3)
    cost = float(re.search(r"C = ([\d.e-]+)", found.note)[1])
    assert by_cost[cost] == pytest.approx(max(by_cost.values()), abs=0.01)  # float32 against float64
    assert np.mean(found.test == fitted(cost).predict(vectors[test])) > 0.99
    assert np.mean(found.validation == fitted(cost).predict(vectors[validation])) > 0.99


def test_the_svm_leaves_the_global_generator_alone(cells):
    vectors, codes, parts = cells
    before = np.random.get_state()[1].copy()
    first, second = linear_svm(vectors, codes, parts, 3), linear_svm(vectors, codes, parts, 3)
    np.testing.assert_array_equal(first.test, second.test)
    np.testing.assert_array_equal(before, np.random.get_state()[1])


@pytest.mark.parametrize(("classify", "limit"), [(linear_svm, "SVM_MAX_ITER"), (linear_probe, "MAX_ITER")])
def test_a_fit_that_was_stopped_says_so(cells, classify, limit, monkeypatch):
    vectors, codes, parts = cells
    assert "not converged" not in classify(vectors, codes, parts, 3).note
    monkeypatch.setattr(probe, limit, 1)
    assert "not converged in 1 iterations" in classify(vectors, codes, parts, 3).note


def test_neighbours_are_those_of_scikit_learn(cells):
    vectors, codes, parts = cells
    found = nearest_neighbours(vectors, codes, parts, 3, 7)
    train, test = parts == TRAIN, parts == TEST
    plain = KNeighborsClassifier(7).fit(vectors[train], codes[train])
    scaled = make_pipeline(StandardScaler(), KNeighborsClassifier(7)).fit(vectors[train], codes[train])
    expected = scaled if "each feature" in found.note else plain
    assert np.mean(found.test == expected.predict(vectors[test])) > 0.99


def test_components_that_are_noise_do_not_drown_those_that_tell():
    """As after a PCA: two large components tell the class, sixty small ones are noise."""
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 3, 500).astype(np.int32)
    vectors = rng.standard_normal((500, 62)).astype(np.float32) * 0.05
    vectors[:, :2] = rng.standard_normal((500, 2)) * 0.4 + np.array([[0, 0], [2, 0], [0, 2]])[codes]
    parts = np.array([TRAIN, TRAIN, VALIDATION, TEST, TEST], np.int8)[np.arange(500) % 5]
    found = nearest_neighbours(vectors, codes, parts, 3, 15)
    assert "all features scaled alike" in found.note
    assert np.mean(found.test == codes[parts == TEST]) > 0.95


@pytest.mark.parametrize(
    "read",
    [
        lambda v, c, p: linear_probe(v, c, p, 3),
        lambda v, c, p: linear_svm(v, c, p, 3),
        lambda v, c, p: nearest_neighbours(v, c, p, 3, 5),
    ],
)
def test_what_test_cells_are_called_changes_no_prediction(cells, read):
    vectors, codes, parts = cells
    other = codes.copy()
    other[parts == TEST] = np.random.default_rng(2).permutation(other[parts == TEST])
    first, second = read(vectors, codes, parts), read(vectors, other, parts)
    np.testing.assert_array_equal(first.test, second.test)
    moved = vectors.copy()
    moved[parts == TEST] = 50.0
    np.testing.assert_array_equal(read(moved, codes, parts).validation, first.validation)


def test_a_class_that_training_cells_lack_is_missed_and_nothing_fails(cells):
    vectors, codes, parts = cells
    codes = np.where((codes == 2) & (parts == TRAIN), 1, codes)
    for classify in (linear_probe, linear_svm):
        assert not (classify(vectors, codes, parts, 3).test == 2).any()


def test_of_fits_that_are_equally_good_the_first_and_most_penalised_one_is_taken():
    codes = (np.arange(120) % 2).astype(np.int32)
    parts = np.repeat([TRAIN, VALIDATION, TEST], 40).astype(np.int8)
    vectors = (10 * np.eye(2)[codes] + 0.01 * np.random.default_rng(0).normal(size=(120, 2))).astype(np.float32)
    assert linear_probe(vectors, codes, parts, 2).note.startswith(f"C = {COSTS[0]:g}, each feature scaled")
