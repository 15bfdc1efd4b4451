import math
from itertools import combinations

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from xfm.metrics.attention import MeanAttention, mean_variation, row_entropy


@pytest.fixture
def maps():
    return softmax(2 * np.random.default_rng(0).normal(size=(30, 4, 6)), axis=-1)


def test_entropy_is_scipys_and_ends_at_log_s(maps):
    np.testing.assert_allclose(row_entropy(maps), entropy(maps, axis=-1))
    np.testing.assert_allclose(row_entropy(np.full((2, 8), 1 / 8)), math.log(8))
    np.testing.assert_array_equal(row_entropy(np.eye(5)), np.zeros(5))


def test_the_distance_of_two_maps_by_hand():
    one, other = np.array([[1.0, 0, 0], [0.5, 0.5, 0]]), np.array([[0, 0.0, 1], [0.2, 0.5, 0.3]])
    assert mean_variation(np.stack([one, other])) == pytest.approx((1 + 0.3) / 2)


def test_the_mean_over_all_pairs_is_that_of_a_double_loop(maps):
    pairs = [abs(one - other).sum(axis=1).mean() / 2 for one, other in combinations(maps, 2)]
    assert mean_variation(maps) == pytest.approx(np.mean(pairs), rel=1e-9)


def test_batches_add_up_to_the_whole(maps):
    found = MeanAttention()
    for start, stop in ((0, 7), (7, 7), (7, 8), (8, 30)):
        found.add(maps[start:stop])
    assert found.cells == 30
    np.testing.assert_allclose(found.mean, maps.mean(axis=0))
    assert found.entropy == pytest.approx(entropy(maps, axis=-1).mean())
    # Kept in single precision.
    assert found.variation == pytest.approx(mean_variation(maps), rel=1e-5)


def test_a_mean_of_sharp_maps_that_disagree_is_told_from_even_ones():
    sharp = MeanAttention()
    sharp.add(np.stack([np.eye(4), np.eye(4)[::-1], np.roll(np.eye(4), 1, 0), np.roll(np.eye(4)[::-1], 1, 0)]))
    even = MeanAttention()
    even.add(np.full((4, 4, 4), 0.25))
    np.testing.assert_allclose(sharp.mean, even.mean, atol=0.26)
    assert sharp.entropy == 0
    assert even.entropy == pytest.approx(math.log(4))
    assert sharp.variation > 0.5
    assert even.variation == pytest.approx(0, abs=1e-12)


def test_beyond_the_most_a_keyed_sample_is_compared_whatever_the_batches(maps):
    few, same, other = MeanAttention(most=10), MeanAttention(most=10), MeanAttention(seed=1, most=10)
    few.add(maps)
    other.add(maps)
    for one in maps:
        same.add(one[None])
    assert few.variation == same.variation != other.variation
    assert few.variation == pytest.approx(mean_variation(maps), rel=0.2)


def test_one_map_has_no_spread_and_none_has_nothing(maps):
    found = MeanAttention()
    with pytest.raises(ValueError, match="no map"):
        _ = found.mean
    found.add(maps[:1])
    assert found.variation is None


@pytest.mark.parametrize("bad", [np.full((1, 2, 3), 0.5), np.full((1, 2, 2), np.nan), np.array([[[1.5, -0.5]]])])
def test_what_is_no_distribution_is_refused(bad):
    with pytest.raises(ValueError, match="attention"):
        MeanAttention().add(bad)


def test_maps_of_another_shape_are_refused(maps):
    found = MeanAttention()
    found.add(maps)
    with pytest.raises(ValueError, match=r"\(B, N, S\) maps of \(4, 6\)"):
        found.add(maps[:, :3])
