"""Accuracy among the classes of the own data set, by hand."""

import numpy as np
import pytest

from xfm.metrics.classification import has_choice, seen_classes, set_majorities, within_chance, within_predictions

# Data set 0 trains on classes 0 (twice) and 1, data set 1 on class 2; data set 2 has no training cell.
SEEN = seen_classes(np.array([0, 0, 0, 1, -1, 1]), np.array([0, 0, 1, 2, 0, -1]), 3, 4)


def test_training_cells_are_counted_by_data_set_and_class():
    assert SEEN.tolist() == [[2, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_the_best_class_is_chosen_among_those_that_training_saw_in_the_data_set():
    scores = np.array([[0.1, 0.2, 0.9, 0.95], [-5.0, -6.0, 3.0, 4.0], [0.9, 0.5, -2.0, 1.0]])
    assert within_predictions(scores, np.array([0, 0, 1]), SEEN).tolist() == [1, 0, 2]


def test_cells_of_unknown_data_sets_and_of_those_without_training_cells_have_no_choice():
    assert has_choice(np.array([0, 1, 2, -1]), SEEN).tolist() == [True, True, False, False]


def test_a_column_that_says_nothing_of_any_cell_gives_no_choice():
    sets, seen = np.full(4, -1), seen_classes(np.full(3, -1), np.array([0, 1, 1]), 0, 2)
    assert has_choice(sets, seen).tolist() == [False] * 4
    assert set_majorities(sets, seen, 1).tolist() == [1] * 4


def test_the_data_set_alone_says_its_largest_class_and_chance_is_one_over_its_classes():
    sets = np.array([0, 1, 0])
    assert set_majorities(sets, SEEN, 3).tolist() == [0, 2, 0]
    assert set_majorities(np.array([-1, 2, 1]), SEEN, 3).tolist() == [3, 3, 2]
    assert within_chance(sets, SEEN) == pytest.approx((0.5 + 1 + 0.5) / 3)


def test_a_classifier_that_knows_the_data_set_alone_is_at_chance_within_it():
    """Ten even donors in two data sets: plain accuracy one fifth, twice chance; within, one fifth, which is chance."""
    rng = np.random.default_rng(0)
    donor = rng.integers(0, 10, 4000)
    sets = donor % 2
    seen = seen_classes(sets, donor, 2, 10)
    scores = rng.normal(size=(4000, 10)) + 100.0 * (np.arange(10)[None] % 2 == sets[:, None])
    assert (scores.argmax(1) == donor).mean() == pytest.approx(0.2, abs=0.03)
    assert (within_predictions(scores, sets, seen) == donor).mean() == pytest.approx(
        within_chance(sets, seen), abs=0.03
    )
