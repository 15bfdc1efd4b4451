"""Errors and correlations against scipy and scikit-learn; the bootstrap against its law."""

import numpy as np
import pytest
from scipy.stats import ConstantInputWarning, pearsonr, rankdata, spearmanr
from sklearn.metrics import mean_absolute_error, mean_squared_error

from xfm.metrics.regression import SUMS, cell_sums, pearson
from xfm.metrics.resampling import bootstrap_cells, percentile_interval, resampled_sums


def binned(rng, size):
    """Bins with many ties, and a prediction with some."""
    target = rng.integers(1, 6, size).astype(float)
    return np.round(target + rng.normal(size=size), 1), target


@pytest.mark.parametrize("size", [2, 3, 50, 1000])
def test_sums_of_a_cell_are_those_of_scipy_and_scikit_learn(size):
    rng = np.random.default_rng(size)
    predicted, target = rng.normal(size=size), rng.permutation(np.arange(size) // 2).astype(float)
    if size > 3:
        predicted, target = binned(rng, size)
    if size == 2:
        target = np.array([1.0, 2.0])
    sums = dict(zip(SUMS, cell_sums(predicted, target), strict=True))
    assert sums["n"] == size
    assert sums["squared_error"] == pytest.approx(size * mean_squared_error(target, predicted))
    assert sums["absolute_error"] == pytest.approx(size * mean_absolute_error(target, predicted))
    assert sums["pearson"] == pytest.approx(pearsonr(predicted, target)[0], abs=1e-12)
    assert sums["spearman"] == pytest.approx(spearmanr(predicted, target)[0], abs=1e-12)
    np.testing.assert_array_equal(cell_sums(predicted, target, rankdata(target)), cell_sums(predicted, target))


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 7e8])
def test_a_constant_vector_has_no_correlation_as_scipy_says(value):
    other, constant = np.arange(7.0), np.full(7, value)
    with pytest.warns(ConstantInputWarning):
        assert np.isnan(pearsonr(constant, other)[0])
    for a, b in ((constant, other), (other, constant), (constant, constant)):
        assert np.isnan(pearson(a, b))
        assert np.isnan(cell_sums(a, b)[3:]).all()
        assert np.isfinite(cell_sums(a, b)[:3]).all()


@pytest.mark.parametrize("spread", [3e-6, 6e-5, 2e-4, 1e-3, 0.1])
def test_rounding_does_not_decide_whether_there_is_a_correlation_nor_what_it_is(spread):
    """Predictions that differ by `spread` of their size, moved by eight units of float32's last place 50 times."""
    rng = np.random.default_rng(0)
    target = rng.integers(1, 51, 200).astype(float)
    exact = 7 * (1 + spread * (0.4 * (target - target.mean()) / target.std() + rng.normal(size=200)))
    terms = abs(exact)
    found = []
    for _ in range(50):
        predicted = (exact + terms * 2**-20 * rng.normal(size=200)).astype(np.float32).astype(float)
        found.append(cell_sums(predicted, target, float32_terms=terms)[3:])
    if spread < 1e-4:  # scipy sees no constant here, and what it gives moves by far more than is printed
        assert np.isnan(found).all()
        return
    # To the two decimals that LEAST_SPREAD promises, and the better the wider predictions spread; ranks move in steps:
    # two neighbours that change places move the correlation of N ranks by up to 12 / N**2.
    expected = pearsonr(exact, target)[0], spearmanr(exact, target)[0]
    assert (abs(np.array(found) - expected) <= 2**-20 / spread + np.array([1e-7, 12 / 200**2])).all()


def test_an_affine_map_leaves_a_correlation_as_defined_as_it_was():
    rng = np.random.default_rng(1)
    target = rng.normal(size=30)
    for width in (1e-5, 1e-3):
        predicted = 3 + width * rng.normal(size=30)
        plain = cell_sums(predicted, target, float32_terms=abs(predicted))[3:]
        scaled = 2000 * predicted
        mapped = cell_sums(scaled - 5990, target, float32_terms=abs(scaled))[3:]
        assert np.isnan(plain).all() == (width < 1e-4)
        np.testing.assert_allclose(mapped, plain, rtol=0, atol=1e-9)  # float64, less the three digits that cancel


def test_a_single_gene_has_an_error_and_no_correlation():
    np.testing.assert_array_equal(cell_sums(np.array([3.0]), np.array([5.0])), [1, 4, 2, np.nan, np.nan])


def test_errors_over_cells_weigh_each_prediction_once_whatever_the_sizes_of_cells():
    rng = np.random.default_rng(0)
    cells = [binned(rng, size) for size in (2, 30, 400)]
    sums = np.stack([cell_sums(*cell) for cell in cells])
    predicted, target = (np.concatenate(side) for side in zip(*cells, strict=True))
    n, squared, absolute = sums[:, :3].sum(axis=0)
    assert squared / n == pytest.approx(mean_squared_error(target, predicted))
    assert absolute / n == pytest.approx(mean_absolute_error(target, predicted))


def test_the_bootstrap_of_three_cells_is_the_hand_written_one():
    top, bottom = np.array([1.0, 5.0, 9.0]), np.array([1.0, 2.0, 4.0])
    resamples, drawn = 40, []
    rng = np.random.default_rng(5)
    for _ in range(resamples):
        chosen = rng.integers(0, 3, 3)
        drawn.append(sum(top[i] for i in chosen) / sum(bottom[i] for i in chosen))
    low, high = bootstrap_cells(3, [top[:, None], bottom[:, None]], np.random.default_rng(5), resamples)
    assert low[0] == pytest.approx(np.percentile(drawn, 2.5))
    assert high[0] == pytest.approx(np.percentile(drawn, 97.5))


def test_all_statistics_are_taken_on_the_same_resamples():
    values = np.random.default_rng(0).normal(5, 1, (30, 1))
    drawn = resampled_sums(np.hstack([values, 2 * values, values]), np.random.default_rng(1), 70)
    order_of_sums = 30 * 2**-53  # BLAS adds 30 terms in another order in another column of a product of matrices
    np.testing.assert_allclose(drawn[:, 1], 2 * drawn[:, 0], rtol=order_of_sums)
    np.testing.assert_allclose(drawn[:, 2], drawn[:, 0], rtol=order_of_sums)
    assert len(np.unique(drawn[:, 0])) > 60


def test_intervals_cover_the_true_ratio_about_as_often_as_they_say():
    # 200 samples of 60 cells: the share covered has a standard error of 1.5 %, and percentile intervals of so few
    # cells are known to be a little too narrow. Without resampling whole cells the share would be far lower.
    rng, covered, repeats, cells = np.random.default_rng(2), 0, 200, 60
    for _ in range(repeats):
        genes = rng.integers(5, 50, cells).astype(float)
        level = rng.gamma(4, 0.5, cells)  # the error of all genes of a cell goes together; its mean is 2
        low, high = bootstrap_cells(cells, [(genes * level)[:, None], genes[:, None]], rng, 200)
        covered += bool(low[0] <= 2 <= high[0])
    assert 0.88 <= covered / repeats <= 0.985


def test_resamples_that_define_nothing_are_left_out_and_never_count_as_zero():
    # One of four cells has a correlation: a resample without that cell has none; all others have exactly 0.8.
    top, bottom = np.zeros((4, 2)), np.zeros((4, 2))
    top[0, 0], bottom[0, 0] = 0.8, 1.0
    low, high = bootstrap_cells(4, [top, bottom], np.random.default_rng(0), 100)
    assert (low[0], high[0]) == pytest.approx((0.8, 0.8))
    assert np.isnan([low[1], high[1]]).all()


def test_a_level_gives_the_quantiles_it_names():
    drawn = np.arange(101.0)[:, None]
    np.testing.assert_allclose(percentile_interval(drawn, 0.9)[:, 0], [5, 95])


def test_sums_of_another_number_of_cells_are_refused():
    with pytest.raises(ValueError, match="5 cells announced"):
        bootstrap_cells(5, [np.ones((4, 1)), np.ones((4, 1))], np.random.default_rng(0), 3)
