"""Draws of groups against their law, sums against cells repeated by hand, intervals against what they promise."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from xfm.metrics.resampling import GroupDraws, bootstrap, draw_groups, estimate, group_sums, of_fewer, weighted_sums


def whole(draws, size=64):
    return np.vstack(list(draws.blocks(size)))


def means_of(draws, values):
    """Mean over cells of the data and of each resample."""
    sums = group_sums(draws.codes, draws.n_groups, np.stack([values, np.ones(len(values))], axis=1))

    def statistic(weights):
        total, cells = weighted_sums(weights, sums).T
        return {"mean": total / cells}

    return bootstrap(draws, statistic)["mean"]


def test_as_many_groups_are_drawn_as_there_are_and_each_with_equal_chance():
    drawn = draw_groups(20, np.random.default_rng(0), 20_000)
    assert drawn.dtype == np.uint16
    assert (drawn.sum(axis=1) == 20).all()
    # Multinomial: mean 1, variance 1 - 1/20, covariance -1/20. Errors of these means over 20,000 rows are below 0.01.
    covariance = np.cov(drawn.T.astype(float))
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.04)
    np.testing.assert_allclose(np.diag(covariance), 0.95, atol=0.06)
    np.testing.assert_allclose(covariance[~np.eye(20, dtype=bool)], -0.05, atol=0.04)


@pytest.mark.parametrize("size", [1, 7, 64, 5000])
def test_blocks_of_any_size_hold_the_same_draws(size):
    draws = GroupDraws(np.arange(33), seed=4, resamples=130)
    blocks = list(draws.blocks(size))
    assert max(map(len, blocks)) == min(size, 130)
    np.testing.assert_array_equal(np.vstack(blocks), whole(draws))


def test_bootstrap_draws_depend_on_the_seed_and_the_number_of_groups_alone():
    codes = np.repeat(np.arange(9), 3)
    drawn = whole(GroupDraws(codes, seed=1, resamples=50))
    np.testing.assert_array_equal(whole(GroupDraws(codes, seed=1, resamples=50)), drawn)
    # Other numbers for the groups, other cells in them, more resamples.
    np.testing.assert_array_equal(whole(GroupDraws(np.arange(9) * 5 - 7, seed=1, resamples=80))[:50], drawn)
    assert (whole(GroupDraws(codes, seed=2, resamples=50)) != drawn).any()
    assert len(np.unique(drawn, axis=0)) == 50


def test_groups_without_a_cell_are_not_drawn():
    draws = GroupDraws(np.array([8, 2, 8, 100]), seed=0, resamples=3)
    assert draws.n_groups == 3
    np.testing.assert_array_equal(draws.codes, [1, 0, 1, 2])


def test_no_cell_is_refused():
    with pytest.raises(ValueError, match="at least one cell"):
        GroupDraws(np.array([], dtype=int), seed=0)


def test_weights_of_many_groups_are_never_held_at_once():
    draws = GroupDraws(np.arange(50_000), seed=0, resamples=640)
    tracemalloc.start()
    drawn = sum(int(block.sum()) for block in draws.blocks())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert drawn == 640 * 50_000
    assert peak < 640 * 50_000 * 2 / 2  # bytes; all weights are twice as many, one block a tenth


@pytest.mark.parametrize("is_sparse", [False, True])
def test_sums_of_groups_are_those_of_pandas(is_sparse):
    rng = np.random.default_rng(0)
    codes, columns = rng.integers(0, 7, 200), rng.poisson(0.3, (200, 5)).astype(float)
    columns[:, 4] = 0
    found = group_sums(codes, 7, sparse.csr_array(columns) if is_sparse else columns)
    assert sparse.issparse(found) == is_sparse
    found = found.toarray() if is_sparse else found
    np.testing.assert_array_equal(found, pd.DataFrame(columns).groupby(codes).sum().to_numpy())


def test_a_group_may_have_no_cell_to_sum_and_lengths_must_match():
    np.testing.assert_array_equal(group_sums(np.array([2, 2]), 4, np.array([[1.0], [2.0]])), [[0], [0], [3], [0]])
    with pytest.raises(ValueError, match="2 cells have a group, 3"):
        group_sums(np.array([0, 1]), 2, np.ones((3, 1)))


@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("resamples", [1, 64, 150])
def test_weighted_sums_are_sums_over_cells_repeated_as_often_as_their_group_is_drawn(is_sparse, resamples):
    rng = np.random.default_rng(1)
    codes, counts = rng.integers(0, 11, 80), rng.integers(0, 3, (80, 4))
    counts[:, 0] *= 2**40 + 1  # float32 would lose the last digit
    draws = GroupDraws(codes, seed=0, resamples=resamples)
    sums = group_sums(draws.codes, draws.n_groups, sparse.csr_array(counts) if is_sparse else counts)
    found = weighted_sums(whole(draws), sums)
    assert found.dtype == np.float64
    expected = [np.repeat(counts, weights[draws.codes], axis=0).sum(axis=0) for weights in whole(draws)]
    assert 2**40 < np.max(expected) < 2**53
    np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures("bootstrap_of_few_groups")
def test_a_resample_repeats_whole_groups():
    values, codes = np.array([1.0, 2.0, 10.0, 20.0, 30.0]), np.array([0, 0, 1, 1, 2])
    draws = GroupDraws(codes, seed=3, resamples=40)
    found = means_of(draws, values)
    assert found.value == values.mean()
    by_hand = [np.mean([values[i] for g, n in enumerate(w) for _ in range(n) for i in range(5) if codes[i] == g])
               for w in whole(draws)]  # fmt: skip
    np.testing.assert_allclose(found.draws, by_hand)


def test_one_group_claims_no_certainty():
    found = means_of(GroupDraws(np.zeros(5, dtype=int), seed=0, resamples=20), np.arange(5.0))
    assert found.value == 2
    assert np.isnan(found.draws).all()
    interval = estimate(*found, 1)
    assert (interval.value, interval.low, interval.high) == (2, None, None)
    assert interval.why == "1 group, and it takes 3"


def test_two_groups_do_not_say_how_much_groups_vary():
    resampled = means_of(GroupDraws(np.arange(2), seed=0, resamples=20), np.arange(2.0))
    assert np.isnan(resampled.draws).all()
    found = estimate(*resampled, 2)
    assert (found.value, found.low, found.why) == (0.5, None, "2 groups, and it takes 3")


@pytest.mark.parametrize("n_groups", [3, 5, 12, 40])
def test_the_interval_of_a_mean_over_few_even_groups_is_students(n_groups):
    values = np.random.default_rng(n_groups).normal(size=n_groups)
    found = estimate(*means_of(GroupDraws(np.repeat(np.arange(n_groups), 4), seed=1), np.repeat(values, 4)), n_groups)
    low, high = stats.t.interval(0.95, n_groups - 1, values.mean(), stats.sem(values))
    width = high - low
    assert found.low == pytest.approx(low, abs=0.03 * width)  # 2,000 draws, spread evenly
    assert found.high == pytest.approx(high, abs=0.03 * width)


def test_draws_of_few_groups_may_be_subtracted():
    draws, (a, b) = GroupDraws(np.repeat(np.arange(6), 5), seed=3), np.random.default_rng(0).normal(size=(2, 30))
    apart = means_of(draws, a).draws - means_of(draws, b).draws
    np.testing.assert_allclose(apart, means_of(draws, a - b).draws, atol=1e-12)


def test_where_one_group_holds_most_cells_many_groups_are_hardly_more_than_one():
    even, uneven = np.repeat(np.arange(5), 20), np.repeat(np.arange(5), [80, 5, 5, 5, 5])
    assert GroupDraws(even, 0).effective == pytest.approx(5)
    assert GroupDraws(uneven, 0).effective == pytest.approx(100**2 / (80**2 + 4 * 5**2))
    # As a t of 4 degrees of freedom is narrower than one of 1: 2.78 and 12.7 where 97.5 % lie below.
    ends = [np.quantile(GroupDraws(codes, 0).t_weights, 0.975) for codes in (even, uneven)]
    np.testing.assert_allclose(ends, stats.t.ppf(0.975, [4, 1]), rtol=0.1)


@pytest.mark.parametrize(("groups", "usual"), [(40, stats.t.ppf(0.975, 39)), (100, stats.norm.ppf(0.975))])
def test_a_class_that_three_groups_hold_is_known_from_three(groups, usual):
    draws = GroupDraws(np.arange(groups), 0, 50)
    found = means_of(draws, np.random.default_rng(0).normal(size=groups))
    part = of_fewer(found, np.array([4] * 3 + [0] * (groups - 3)), draws)
    assert part.value == found.value
    wider = stats.t.ppf(0.975, 2) / usual
    np.testing.assert_allclose(part.draws - part.value, wider * (found.draws - found.value), atol=1e-12)
    # Whoever stands in all groups alike is as sure as all cells together.
    whole = of_fewer(found, np.full(groups, 7), draws).draws
    np.testing.assert_allclose(whole - found.value, found.draws - found.value, rtol=0.02)


def test_what_one_group_alone_defines_has_no_interval():
    draws = GroupDraws(np.arange(4), seed=0, resamples=20)

    def statistic(weights):
        return {"of the first": np.where(weights[:, 0] > 0, 0.5, np.nan)}

    found = bootstrap(draws, statistic)["of the first"]
    assert estimate(*found, 4).why == "undefined without one of the groups"


def test_what_all_groups_share_has_no_interval():
    assert "the same in every group" in estimate(*means_of(GroupDraws(np.arange(4), 0, 20), np.ones(4)), 4).why


def test_an_interval_is_of_the_draws_that_are_defined():
    draws = np.concatenate([np.arange(101.0), np.full(50, np.nan)])
    interval = estimate(3.5, draws)
    assert (interval.value, interval.low, interval.high) == pytest.approx((3.5, 2.5, 97.5))


def test_an_undefined_score_has_no_estimate():
    assert estimate(float("nan"), np.arange(5.0)) is None


@pytest.mark.slow
def test_groups_cover_the_truth_where_cells_do_not():
    # 30 donors with 20 cells each; a donor's cells share most of their deviation from the true mean 0. Shares covered
    # of 200 repeats have a standard error of 1.5 %; percentile intervals of 30 groups are a little narrow.
    rng, by_group, by_cell = np.random.default_rng(0), 0, 0
    codes = np.repeat(np.arange(30), 20)
    for repeat in range(200):
        values = rng.normal(size=30)[codes] + 0.5 * rng.normal(size=600)
        intervals = [estimate(*means_of(GroupDraws(c, repeat, 200), values)) for c in (codes, np.arange(600))]
        grouped, celled = (interval.low <= 0 <= interval.high for interval in intervals)
        by_group, by_cell = by_group + grouped, by_cell + celled
    assert by_group / 200 > 0.88
    assert by_cell / 200 < 0.5
