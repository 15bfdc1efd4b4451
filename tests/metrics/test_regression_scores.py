"""Scores of predicted numbers against scikit-learn and scipy, as they are and in every resample of groups."""

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import mean_absolute_error, r2_score

from xfm.metrics.regression import SCORES, bootstrap_regression, regression_scores
from xfm.metrics.resampling import GroupDraws


def reference(truth, predicted):
    return {
        "r2": r2_score(truth, predicted), "mae": mean_absolute_error(truth, predicted),
        "pearson": pearsonr(truth, predicted)[0], "spearman": spearmanr(truth, predicted)[0],
    }  # fmt: skip


def ages(rng, n=60):
    """Whole years with ties, far from 0, and a prediction with ties of its own."""
    truth = 1000.0 + rng.integers(20, 40, n)
    return truth, np.round(truth + rng.normal(scale=5, size=n))


def test_scores_are_those_of_scikit_learn_and_scipy():
    truth, predicted = ages(np.random.default_rng(0))
    found = regression_scores(truth, predicted)
    assert tuple(found) == SCORES
    assert found == pytest.approx(reference(truth, predicted), abs=1e-9)


def test_by_hand():
    """Errors 1, 1, 2: MAE 4/3, R² = 1 - 6 / 8."""
    found = regression_scores(np.array([1.0, 3.0, 5.0]), np.array([2.0, 2.0, 7.0]))
    assert found["mae"] == pytest.approx(4 / 3)
    assert found["r2"] == pytest.approx(0.25)


@pytest.mark.usefixtures("bootstrap_of_few_groups")
def test_each_draw_is_the_score_of_the_rows_of_the_groups_that_were_drawn():
    rng = np.random.default_rng(1)
    truth, predicted = ages(rng)
    draws = GroupDraws(rng.integers(0, 8, len(truth)), seed=3, resamples=70)
    found = bootstrap_regression(truth, predicted, draws)
    (weights,) = draws.blocks(70)
    for number, times in enumerate(weights):
        rows = np.repeat(np.arange(len(truth)), times[draws.codes])
        expected = reference(truth[rows], predicted[rows])
        assert {name: found[name].draws[number] for name in SCORES} == pytest.approx(expected, abs=1e-9)


def test_what_is_not_defined_is_nan_and_no_rounding():
    truth, predicted = ages(np.random.default_rng(2))
    mean = regression_scores(truth, np.full(len(truth), truth.mean() + 1 / 3))
    assert np.isnan(mean["pearson"])
    assert np.isnan(mean["spearman"])
    assert mean["r2"] < 0
    constant = regression_scores(np.full(5, 0.1), predicted[:5])
    assert np.isnan([constant[name] for name in ("r2", "pearson", "spearman")]).all()
    assert np.isfinite(constant["mae"])


@pytest.mark.usefixtures("bootstrap_of_few_groups")
def test_a_resample_whose_drawn_donors_are_all_of_one_age_has_no_r2():
    """Age is a donor's: with two donors a half of all resamples holds one of them alone."""
    groups = np.repeat([0, 1], 10)
    truth = np.where(groups == 0, 31.7, 64.1)
    predicted = truth + np.random.default_rng(0).normal(size=20)
    draws = GroupDraws(groups, seed=0, resamples=50)
    found = bootstrap_regression(truth, predicted, draws)["r2"].draws
    (weights,) = draws.blocks(50)
    assert np.array_equal(np.isnan(found), (weights == 0).any(axis=1))
    assert 0 < np.isnan(found).sum() < 50


@pytest.mark.slow
def test_the_interval_covers_the_true_correlation():
    """Of 100 samples from a bivariate normal distribution about 95 intervals should hold rho; 85 allows for luck
    (a binomial with p = 0.95 falls below 88 once in 1,000) and for the small sample."""
    rho, hits = 0.6, 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=100)
        predicted = rho * truth + np.sqrt(1 - rho**2) * rng.normal(size=100)
        found = bootstrap_regression(truth, predicted, GroupDraws(np.arange(100), seed, 200))["pearson"]
        low, high = np.quantile(found.draws, [0.025, 0.975])
        hits += low <= rho <= high
    assert hits >= 85


def test_numbers_that_do_not_match_or_are_none_are_refused():
    with pytest.raises(ValueError, match="row by row"):
        regression_scores(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="NaN"):
        regression_scores(np.array([1.0, np.nan]), np.zeros(2))
