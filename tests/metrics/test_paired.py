"""Paired tests against enumeration by hand, McNemar's exact test, statsmodels, and what a p-value promises."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest, kstest
from sklearn.metrics import f1_score, precision_score
from statsmodels.stats.multitest import multipletests

from xfm.metrics.classification import bootstrap_scores
from xfm.metrics.paired import bootstrap_difference, holm, permutation_test, sign_flip_test
from xfm.metrics.resampling import GroupDraws, estimate


def noisy(rng, truth, n_classes, right):
    return np.where(rng.random(len(truth)) < right, truth, rng.integers(0, n_classes, len(truth)))


def enumerated(truth, a, b, codes, score):
    """Every swap of whole groups, each scored by scikit-learn: the share at least as different as what was seen."""
    seen, as_extreme = abs(score(truth, a) - score(truth, b)), 0
    swaps = list(product([False, True], repeat=len(np.unique(codes))))
    for swap in swaps:
        swapped = np.array(swap)[codes]
        difference = score(truth, np.where(swapped, b, a)) - score(truth, np.where(swapped, a, b))
        as_extreme += abs(difference) >= seen - 1e-9
    return as_extreme / len(swaps)


def macro(score):
    return lambda truth, predicted: score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0)


@pytest.mark.parametrize(("metric", "score"), [("f1", macro(f1_score)), ("precision", macro(precision_score))])
@pytest.mark.parametrize("seed", range(4))
def test_few_groups_are_swapped_in_every_way(metric, score, seed):
    rng = np.random.default_rng(seed)
    codes, truth = rng.permutation(np.arange(60) % 7), rng.integers(0, 3, 60)
    a, b = noisy(rng, truth, 4, 0.8), noisy(rng, truth, 3, 0.6)  # class 3 is predicted and never true
    b[codes >= 5] = a[codes >= 5]  # two groups on which both agree
    expected = enumerated(truth, a, b, codes, score)
    for rng in (np.random.default_rng(0), np.random.default_rng(1)):
        assert permutation_test(truth, a, b, 4, codes * 10 + 3, metric, rng) == expected
    assert permutation_test(truth, b, a, 4, codes, metric, rng) == expected


def test_with_each_cell_its_own_group_accuracy_gives_mcnemars_exact_test():
    truth = np.zeros(40, dtype=int)
    for only_a, only_b in ((9, 2), (5, 5), (0, 6), (1, 0), (12, 1)):
        a, b = np.ones(40, dtype=int), np.ones(40, dtype=int)
        a[: only_a + 8] = 0
        b[only_a : only_a + 8 + only_b] = 0  # 8 cells are right for both
        p = permutation_test(truth, a, b, 2, np.arange(40), "accuracy", np.random.default_rng(0))
        assert p == pytest.approx(binomtest(only_a, only_a + only_b).pvalue, rel=1e-12)


def test_many_groups_are_swapped_at_random_and_come_close_to_mcnemars_exact_test():
    truth = np.zeros(200, dtype=int)
    a, b = np.ones(200, dtype=int), np.ones(200, dtype=int)
    a[:40], b[:2], b[40:62] = 0, 0, 0
    exact = binomtest(38, 60).pvalue
    found = permutation_test(truth, a, b, 2, np.arange(200), "accuracy", np.random.default_rng(0), 39_999)
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact / 40_000))


def test_the_same_generator_gives_the_same_p_and_no_sampled_p_is_zero():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    a, b = noisy(rng, truth, 3, 0.95), noisy(rng, truth, 3, 0.5)
    args = truth, a, b, 3, np.arange(300), "f1"
    assert permutation_test(*args, np.random.default_rng(1), 99) == 1 / 100
    close = noisy(rng, truth, 3, 0.93)
    first, again, other = (
        permutation_test(truth, a, close, 3, np.arange(300), "f1", np.random.default_rng(seed), 199)
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_predictors_that_agree_do_not_differ():
    truth = np.array([0, 1, 1])
    assert permutation_test(truth, truth, truth, 2, np.arange(3), "accuracy", np.random.default_rng(0)) == 1
    nobody = np.array([], dtype=int)
    assert np.isnan(permutation_test(nobody, nobody, nobody, 2, nobody, "accuracy", np.random.default_rng(0)))


def test_recall_is_balanced_accuracy_and_an_unknown_score_is_refused():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 30)
    args = truth, noisy(rng, truth, 3, 0.9), noisy(rng, truth, 3, 0.5), 3, np.arange(30) % 6
    found = [permutation_test(*args, name, np.random.default_rng(0)) for name in ("recall", "balanced_accuracy")]
    assert found[0] == found[1]
    with pytest.raises(ValueError, match="unknown score 'mcc'"):
        permutation_test(*args, "mcc", np.random.default_rng(0))


def test_predictors_that_are_alike_give_uniform_p():
    found = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        truth = rng.integers(0, 4, 120)
        a, b = noisy(rng, truth, 4, 0.6), noisy(rng, truth, 4, 0.6)
        found.append(permutation_test(truth, a, b, 4, np.arange(120), "f1", rng, 199))
    assert kstest(found, "uniform").pvalue > 0.01
    # 5 % of 300 are 15, with a standard deviation of 3.8.
    assert 4 <= np.sum(np.array(found) <= 0.05) <= 27


def test_groups_whose_cells_err_together_must_be_swapped_as_a_whole():
    # Either predictor is right on a random half of the donors: alike, though one is right on many more cells by luck.
    by_group, by_cell = [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        codes, truth = np.repeat(np.arange(20), 15), np.zeros(300, dtype=int)
        a, b = (rng.integers(0, 2, 20)[codes] for _ in "ab")
        for found, groups in ((by_group, codes), (by_cell, np.arange(300))):
            found.append(permutation_test(truth, a, b, 2, groups, "accuracy", rng, 99))
    assert np.mean(np.array(by_group) <= 0.05) <= 0.12
    assert np.mean(np.array(by_cell) <= 0.05) > 0.3


def test_a_difference_of_draws_is_taken_resample_by_resample():
    a, b = np.array([0.9, 0.7, 0.8, np.nan, 0.6]), np.array([0.5, 0.75, 0.6, 0.1, np.nan])
    found = bootstrap_difference(a, b, 0.8, 0.6)
    # Defined differences 0.4, -0.05, 0.2: one of three is not above 0.
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile([0.4, -0.05, 0.2], [2.5, 97.5])))
    assert found.p == pytest.approx(min(1, 2 * (1 + 1) / (3 + 1)))
    assert bootstrap_difference(np.linspace(0.7, 0.9, 99), np.full(99, 0.6), 0.8, 0.6).p == pytest.approx(2 / 100)


def test_no_p_is_below_what_so_few_groups_could_say():
    # Of 5 groups there are 2**5 ways to swap, and two of them are always as extreme.
    assert bootstrap_difference(np.linspace(0.7, 0.9, 99), np.full(99, 0.6), 0.8, 0.6, 5).p == 2 / 2**5


def test_a_difference_that_is_the_same_in_every_draw_claims_no_certainty():
    found = bootstrap_difference(np.full(99, 0.8), np.full(99, 0.6), 0.8, 0.6)
    assert (found.low, found.high) == (None, None)
    assert np.isnan(found.p)
    assert "the same in every group" in found.why


def test_a_score_does_not_differ_from_itself():
    draws = np.random.default_rng(0).random(100)
    found = bootstrap_difference(draws, draws, 0.5, 0.5)
    assert (found.value, found.low, found.high, found.p) == (0, None, None, 1)


def test_draws_that_define_nothing_and_draws_of_other_resamples():
    found = bootstrap_difference(np.full(9, np.nan), np.ones(9), float("nan"), 1.0)
    assert (found.low, found.high) == (None, None)
    assert np.isnan([found.value, found.p]).all()
    with pytest.raises(ValueError, match="9 draws cannot be paired with 10"):
        bootstrap_difference(np.ones(9), np.ones(10), 1.0, 1.0)


@pytest.mark.slow
def test_a_paired_interval_covers_no_difference_as_often_as_it_says_and_is_narrower_than_an_unpaired_one():
    # Predictors share most of their errors. Shares of 150 repeats have a standard error of 1.8 %.
    covered, shares, p_values = 0, [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        truth = rng.integers(0, 3, 200)
        shared = noisy(rng, truth, 3, 0.7)
        a, b = (np.where(rng.random(200) < 0.1, noisy(rng, truth, 3, 0.7), shared) for _ in "ab")
        draws = GroupDraws(np.arange(200), seed, 300)
        (value_a, draws_a), (value_b, draws_b) = (bootstrap_scores(truth, x, 3, draws)["f1"] for x in (a, b))
        found = bootstrap_difference(draws_a, draws_b, value_a, value_b)
        covered += found.low <= 0 <= found.high
        p_values.append(found.p)
        own = estimate(value_a, draws_a)
        shares.append((found.high - found.low) / (own.high - own.low))
    assert 0.88 <= covered / 150 <= 0.995
    assert np.mean(np.array(p_values) <= 0.05) <= 0.12
    assert np.median(shares) < 0.75  # independent ones: the root of 2


def test_holm_is_the_worked_example():
    # As R's p.adjust(c(.01, .04, .03, .005), "holm"): .005 * 4, .01 * 3, .03 * 2, and .04 not below its predecessor.
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_that_of_statsmodels_and_does_not_count_tests_not_made(seed):
    rng = np.random.default_rng(seed)
    p_values = np.round(rng.random(12) ** 3, 2)  # with ties
    p_values[rng.permutation(12)[:seed]] = np.nan
    made = np.isfinite(p_values)
    found = holm(p_values)
    np.testing.assert_allclose(found[made], multipletests(p_values[made], method="holm")[1], atol=1e-12)
    assert np.isnan(found[~made]).all()


def test_holm_of_no_test():
    assert holm(np.array([])).shape == (0,)
    assert np.isnan(holm(np.array([np.nan]))).all()


def test_signs_of_groups_turned_round_by_hand():
    # Of 1 and 2 the sums are 3, 1, -1, -3: two of four are as far from 0. Of 1, 2, 4 only 7 and -7 are.
    rng = np.random.default_rng(0)
    assert sign_flip_test(np.array([1.0, 2.0]), rng) == 2 / 4
    assert sign_flip_test(np.array([1.0, 2.0, 4.0, 0.0]), rng) == 2 / 8  # without a difference a group says nothing
    assert sign_flip_test(np.array([1.0, -1.0]), rng) == 1
    assert sign_flip_test(np.zeros(3), rng) == 1
    assert np.isnan(sign_flip_test(np.zeros(0), rng))


def test_signs_of_many_groups_are_drawn_and_come_close_to_the_exact_binomial():
    # All of one size: the sum says how many are positive, which is a sign test. 21 of 30 are, two-sided .0428.
    differences = np.where(np.arange(30) < 21, 1.0, -1.0)
    found = sign_flip_test(differences, np.random.default_rng(0))
    assert found == pytest.approx(binomtest(21, 30).pvalue, abs=0.006)
