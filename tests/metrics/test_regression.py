"""Errors and correlations against scipy and scikit-learn; the bootstrap against its law."""

import numpy as np
import pytest
from scipy.stats import ConstantInputWarning, pearsonr, rankdata, spearmanr
from sklearn.metrics import mean_absolute_error, mean_squared_error

from xfm.metrics.regression import SUMS, cell_sums, pearson
from xfm.metrics.resampling import percentile_interval


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


def test_a_level_gives_the_quantiles_it_names():
    drawn = np.arange(101.0)[:, None]
    np.testing.assert_allclose(percentile_interval(drawn, 0.9)[:, 0], [5, 95])
