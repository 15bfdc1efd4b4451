import numpy as np
import pytest

from xfm.plots.panels import in_lines, move_apart, places_of


@pytest.mark.parametrize("seed", range(5))
def test_names_end_apart_and_inside_the_frame(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.uniform((60, 12), (140, 30), size=(12, 2))
    low, high = np.zeros(2), np.array([500.0, 500.0])
    moved = move_apart(rng.uniform(150, 350, size=(12, 2)), sizes, low, high)
    for first in range(12):
        assert (moved[first] - sizes[first] / 2 >= low - 1e-9).all()
        assert (moved[first] + sizes[first] / 2 <= high + 1e-9).all()
        for second in range(first):
            room = (sizes[first] + sizes[second]) / 2
            assert (abs(moved[first] - moved[second]) >= room - 1e-3).any()


def test_names_that_do_not_touch_stay_where_they_are():
    centres = np.array([[50.0, 50.0], [200.0, 50.0]])
    np.testing.assert_array_equal(move_apart(centres, np.full((2, 2), 20.0), np.zeros(2), np.full(2, 300.0)), centres)


def test_a_class_in_two_halves_has_no_place_between_them():
    rng = np.random.default_rng(0)
    halves = np.concatenate([rng.normal(-10, 1, (50, 2)), rng.normal(10, 1, (50, 2))])
    middle = rng.normal(0, 1, (100, 2))
    places = places_of(np.concatenate([halves, middle]), np.repeat([0, 1], 100), 2)
    assert list(places) == [1]
    np.testing.assert_array_equal(places[1], np.median(middle, axis=0))


def test_a_class_that_others_surround_has_no_place():
    rng = np.random.default_rng(0)
    assert places_of(rng.normal(size=(300, 2)), np.arange(300) % 3, 3) == {}


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("B cell", "B cell"),
        ("conventional dendritic cell", "conventional\ndendritic cell"),
        ("CD8-positive, alpha-beta cytotoxic T cell", "CD8-positive, alpha-beta\ncytotoxic T cell"),
        ("x" * 60, "x" * 15 + "\N{HORIZONTAL ELLIPSIS}" + "x" * 10),
    ],
)
def test_long_names_are_broken_between_words(name, lines):
    assert in_lines(name) == lines
