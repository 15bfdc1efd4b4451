"""A draw is the score of the cells repeated as often as their group was drawn."""

import numpy as np
import pytest

from xfm.metrics.resampling import GroupDraws
from xfm.metrics.score_with_note import Measure, NotedScore, centred, mean_of_class_means, median, take

CELLS, GROUPS = 60, 12


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    groups = np.concatenate([np.arange(GROUPS), rng.integers(0, GROUPS, CELLS - GROUPS)])
    draws = GroupDraws(groups, 3, 40)
    return rng, draws, np.vstack(list(draws.blocks()))[:, draws.codes]


def scored(statistic, draws):
    return take({"it": Measure(statistic, "a note")}, draws)["it"]


@pytest.mark.usefixtures("bootstrap_of_few_groups")
@pytest.mark.parametrize("cells", [CELLS, CELLS - 1])
def test_the_median_is_that_of_repeated_cells(drawn, cells):
    rng, draws, repeats = drawn
    values = rng.integers(0, 9, CELLS).astype(float)
    used = slice(0, cells)
    noted = scored(median(draws.codes[used], values[used]), draws)
    assert noted.value == np.median(values[used])
    np.testing.assert_array_equal(noted.draws, [np.median(np.repeat(values[used], row[used])) for row in repeats])
    assert noted.note == "a note"


@pytest.mark.usefixtures("bootstrap_of_few_groups")
def test_the_mean_of_class_means_is_that_of_repeated_cells_over_the_classes_drawn(drawn):
    rng, draws, repeats = drawn
    values, classes = rng.normal(size=CELLS), rng.integers(0, 4, CELLS)
    classes[draws.codes == 2] = 5  # a class of one group is missing from some resamples; class 4 has no cell
    classes[(draws.codes != 2) & (classes == 5)] = 0

    def expected(row):
        return np.mean(
            [np.repeat(values, row)[np.repeat(classes, row) == c].mean() for c in set(np.repeat(classes, row))]
        )

    noted = scored(mean_of_class_means(draws.codes, draws.n_groups, classes, values), draws)
    assert noted.value == pytest.approx(expected(np.ones(CELLS, dtype=int)))
    np.testing.assert_allclose(noted.draws, [expected(row) for row in repeats])
    assert len({len(set(np.repeat(classes, row))) for row in repeats}) == 2


@pytest.mark.usefixtures("bootstrap_of_few_groups")
def test_cells_that_are_not_drawn_leave_no_score():
    draws = GroupDraws(np.array([0, 1]), 0, 30)
    only_first = np.array([0])
    for statistic in (
        median(only_first, np.array([7.0])),
        mean_of_class_means(only_first, 2, only_first, np.array([7.0])),
    ):
        noted = scored(statistic, draws)
        assert noted.value == 7
        assert set(noted.draws[np.isfinite(noted.draws)]) == {7.0}
        assert np.isnan(noted.draws).any()


def test_centred_draws_scatter_as_before_around_the_value():
    moved = centred(NotedScore(0.3, np.array([0.5, np.nan, 0.7, 0.9]), "a note"))
    np.testing.assert_allclose(moved.draws, [0.1, np.nan, 0.3, 0.5])
    assert (moved.value, moved.note) == (0.3, "a note")
    for undefined in (NotedScore(None, np.full(4, np.nan)), NotedScore(0.3, np.full(4, np.nan))):
        assert centred(undefined) is undefined


def test_what_is_undefined_has_its_reason_and_no_draws():
    noted = take({"it": Measure(None, "nothing to see")}, GroupDraws(np.arange(3), 0, 5))["it"]
    assert (noted.value, noted.note) == (None, "nothing to see")
    np.testing.assert_array_equal(noted.draws, np.full(5, np.nan))
