"""The probe against scikit-learn's own pipeline, and what it may look at."""

import re

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xfm.loops.evaluation.probe import linear_probe, nearest_neighbours
from xfm.loops.evaluation.split import TEST, TRAIN, VALIDATION


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
    "read", [lambda v, c, p: linear_probe(v, c, p, 3), lambda v, c, p: nearest_neighbours(v, c, p, 3, 5)]
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
    found = linear_probe(vectors, codes, parts, 3)
    assert not (found.test == 2).any()
