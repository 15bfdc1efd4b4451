"""Reliability against scikit-learn, and the calibration error by hand."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from xfm.metrics.calibration import bin_of, gap_sums, reliability, weighted_error


def error_of(confidence, is_right, bins=15):
    """Of all rows once."""
    rows = len(confidence)
    gaps = gap_sums(confidence, is_right, np.zeros(rows, int), 1, bins)
    return weighted_error(np.ones((1, 1)), gaps, np.array([float(rows)]))[0]


def sure_and_right(n=400, seed=0):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.1, 1.0, n).astype(np.float32)
    return confidence, rng.random(n) < confidence**2


def test_bins_are_those_of_scikit_learn():
    confidence, is_right = sure_and_right()
    accuracy, mean = calibration_curve(is_right, confidence, n_bins=15, strategy="uniform")
    found = reliability(confidence, is_right)
    held = found.rows > 0
    np.testing.assert_allclose(found.accuracy[held], accuracy, atol=1e-12)
    np.testing.assert_allclose(found.confidence[held], mean, atol=1e-6)
    assert not held[0]
    assert np.isnan(found.accuracy[0])
    assert found.rows.sum() == 400


def test_the_error_by_hand():
    """Bins of a tenth: .85 and .9 both in (.8, .9], half right: gap .375; .95 alone and right: gap .05."""
    rows = np.array([0.85, 0.9, 0.95]), np.array([True, False, True])
    assert reliability(*rows, bins=10).rows[8:].tolist() == [2, 1]
    assert error_of(*rows, bins=10) == pytest.approx((2 * 0.375 + 0.05) / 3)


def test_a_bin_is_open_at_the_left_and_closed_at_the_right():
    edges = np.linspace(0, 1, 16)
    assert bin_of(edges, 15).tolist() == [0, *range(15)]
    assert bin_of(np.nextafter(edges[:-1], 1), 15).tolist() == list(range(15))


@pytest.mark.parametrize("wrong", [-0.1, 1.1, np.nan])
def test_what_is_no_probability_is_an_error(wrong):
    with pytest.raises(ValueError, match="0 to 1"):
        reliability(np.array([0.5, wrong]), np.array([True, True]))


def test_one_that_is_right_as_often_as_it_says_has_no_error():
    confidence = np.repeat([0.25, 0.75], 100)
    is_right = np.concatenate([np.arange(100) < 25, np.arange(100) < 75])
    assert error_of(confidence, is_right) == pytest.approx(0)


def test_the_error_of_a_resample_is_that_of_its_rows():
    confidence, is_right = sure_and_right(60, 1)
    codes = np.arange(60) // 3
    weights = np.random.default_rng(2).integers(0, 3, (4, 20))
    gaps = gap_sums(confidence, is_right, codes, 20)
    found = weighted_error(weights, gaps, (weights * 3).sum(axis=1).astype(float))
    for row, value in zip(weights, found, strict=True):
        rows = np.repeat(np.arange(60), row[codes])
        assert value == pytest.approx(error_of(confidence[rows], is_right[rows]), abs=1e-9)
