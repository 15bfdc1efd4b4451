"""Numeric columns as targets: what is read, what is refused, and the scores of the mean."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.metrics import r2_score

from xfm.core.errors import Refused
from xfm.judging.eval_set import EvalSet, Targets
from xfm.judging.split import Split
from xfm.judging.targets import check_targets, target_scores, targets_of, training_mean


def judged(values, parts, groups=None):
    n = len(values)
    split = Split(np.array(parts, np.int8), np.arange(n) if groups is None else np.array(groups))
    target = Targets("age", np.array(values, np.float64))
    return EvalSet(np.arange(n), tuple(f"r{i}" for i in range(n)), (), split, resamples=100, targets=(target,)), target


@pytest.mark.parametrize(
    ("column", "values", "missing", "odd"),
    [
        (pa.array([1, None, 3]), [1, np.nan, 3], 1, 0),
        (pa.array([1.5, np.nan, np.inf]), [1.5, np.nan, np.nan], 1, 1),
        (pa.array(["31", " 40.5 ", "na", "old"]), [31, 40.5, np.nan, np.nan], 1, 1),
        (pa.array(["7", "8", "7"]).dictionary_encode(), [7, 8, 7], 0, 0),
    ],
)
def test_a_column_is_read_as_numbers_and_what_is_none_is_counted(column, values, missing, odd):
    found = targets_of(column, "age")
    np.testing.assert_array_equal(found.values, values)
    assert (found.missing, found.odd) == (missing, odd)


@pytest.mark.parametrize(
    ("column", "code", "words"),
    [
        (pa.array(["B cell", "T cell", "9"]), "NOT_NUMERIC", "'B cell'"),
        (pa.array([True, False]), "NOT_NUMERIC", "bool"),
        (pa.array([None, None], pa.float64()), "NO_TARGET", "none of the 2 rows"),
    ],
)
def test_a_column_without_numbers_is_refused_by_name(column, code, words):
    with pytest.raises(Refused, match=words) as refused:
        targets_of(column, "age", "--task.label")
    assert refused.value.code == code
    assert "--task.label age" in str(refused.value)


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ([2, 2, 2, 1, 3, 1, 2], "CONSTANT_TARGET"),
        ([1, 2, 3, 5, 5, 1, 2], "CONSTANT_TARGET"),
        ([1, 2, 3, 4, 5, np.nan, np.nan], "NO_ROWS"),
        ([np.nan, np.nan, np.nan, 4, 5, 1, 2], "NO_ROWS"),
    ],
)
def test_targets_that_cannot_be_learned_or_scored_are_refused(values, code):
    with pytest.raises(Refused) as refused:
        check_targets(*judged(values, [0, 0, 0, 1, 1, 2, 2]))
    assert refused.value.code == code


def test_the_training_mean_scores_as_scikit_learns_dummy_and_no_better_than_0():
    rng = np.random.default_rng(0)
    values, parts = rng.normal(50, 10, 60), np.repeat([0, 1, 2], 20)
    values[[3, 25, 45]] = np.nan
    which, target = judged(values, parts, np.arange(60) // 2)
    scores = list(target_scores("finetune", *training_mean(which, target), which, target))
    dummy = DummyRegressor().fit(np.zeros((19, 1)), values[:20][np.isfinite(values[:20])])
    truth = values[40:][np.isfinite(values[40:])]
    (found,) = (each for each in scores if each.metric == "r2" and each.split == "test")
    assert found.value == pytest.approx(r2_score(truth, dummy.predict(np.zeros((19, 1)))))
    assert found.value <= 0
    assert (found.cells, found.groups) == (19, 10)
    assert all(each.value is None for each in scores if each.metric == "spearman")


def test_digests_tell_targets_apart():
    values, parts = [1.0, 2, 3, 4, 5, 6], [0, 0, 1, 1, 2, 2]
    one, other = judged(values, parts)[0], judged([*values[:-1], 7], parts)[0]
    assert one.cells_digest() == judged(values, parts)[0].cells_digest() != other.cells_digest()
    assert one.label_digests()["age"] != other.label_digests()["age"]
