"""Association of two columns: its ends, a case by hand, and what chance alone gives."""

import numpy as np
import pytest
from scipy.stats.contingency import association as of_scipy

from xfm.metrics.association import association


def test_a_column_tells_itself_and_its_renaming():
    codes = np.arange(3000) % 5
    assert association(codes, 4 - codes) == pytest.approx(1.0, abs=1e-6)


def test_many_rows_need_no_correction_and_give_cramers_v_of_scipy():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 4, 100_000)
    b = np.where(rng.random(100_000) < 0.5, a, rng.integers(0, 4, 100_000))
    table = np.zeros((4, 4), int)
    np.add.at(table, (a, b), 1)
    assert association(a, b) == pytest.approx(of_scipy(table, method="cramer"), abs=1e-3)


def test_columns_that_know_nothing_of_each_other_are_not_tied_however_many_classes_they_have():
    rng = np.random.default_rng(1)
    assert association(rng.integers(0, 20, 200), rng.integers(0, 20, 200)) < 0.15  # uncorrected it is .31


def test_rows_without_a_class_are_left_out_and_one_class_tells_nothing():
    a, b = np.array([0, 1, 0, 1, -1, 1]), np.array([1, 0, 1, 0, 1, -1])
    assert association(a, b) == association(a[:4], b[:4])
    assert association(np.zeros(9, int), np.arange(9) % 3) == 0.0
