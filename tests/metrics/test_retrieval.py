"""Recall at 1 on cases that can be counted by hand."""

import numpy as np
import pytest

from xfm.core.random import rng_for
from xfm.metrics.zero_shot import chance_of_right, nearest_is_right

SIDES = np.eye(3)


def test_a_query_is_right_where_the_nearest_thing_has_its_id():
    queries = np.array([[1.0, 0.1, 0.0], [0.2, 0.9, 0.0], [0.0, 0.8, 0.6]])
    found = nearest_is_right(queries, SIDES, np.array([10, 11, 12]), np.array([10, 11, 12]))
    assert found.tolist() == [True, True, False]


def test_any_thing_of_the_same_id_counts_as_right():
    queries = np.array([[0.0, 1.0, 0.0]])
    assert nearest_is_right(queries, SIDES, np.array([7]), np.array([7, 7, 8])).all()


def test_chance_is_what_blind_draws_reach():
    ids = np.array([0, 0, 0, 1, 1, 2])
    assert chance_of_right(ids, ids) == pytest.approx((9 + 4 + 1) / 36)
    rng = rng_for(0, "chance")
    drawn = ids[rng.integers(0, 6, size=(20_000, 6))] == ids
    assert drawn.mean() == pytest.approx(chance_of_right(ids, ids), abs=0.01)
    assert chance_of_right(np.array([9]), ids) == 0.0


def test_nothing_to_find_is_an_error():
    with pytest.raises(ValueError, match="0 things"):
        nearest_is_right(SIDES, SIDES[:0], np.arange(3), np.arange(0))
