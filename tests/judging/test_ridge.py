"""Ridge regression on planted vectors: what it predicts, what it chooses, and what it may not look at."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, r2_score
from sklearn.preprocessing import StandardScaler

from tests.judging.evaluate_cases import judged_cells
from xfm.core.parts import TEST, TRAIN, VALIDATION
from xfm.judging.eval_set import Targets
from xfm.judging.judge import judge
from xfm.judging.representations import MAJORITY, MEAN
from xfm.judging.ridge import CONSTANT, RIDGE, ridge_probe, ridge_scores

N = 600


def planted(noise=1.0, seed=0):
    """(N, 8) vectors of unlike scales, and 30 + a line through three of them + noise."""
    rng = np.random.default_rng(seed)
    vectors = (rng.normal(size=(N, 8)) * np.geomspace(0.1, 10, 8)).astype(np.float32)
    line = vectors[:, [0, 3, 6]] @ np.array([20.0, -1.0, 0.5])
    return vectors, 30 + line + noise * rng.normal(size=N)


def judged(values, missing=()):
    values = values.copy()
    values[list(missing)] = np.nan
    target = Targets("age", values)
    return judged_cells(np.arange(N) % 2, np.arange(N) // 4, targets=(target,)), target


def found(scores, metric, split):
    (one,) = [each for each in scores if (each.metric, each.split) == (metric, split)]
    return one


def test_predictions_are_those_of_scikit_learn_with_the_penalty_that_was_chosen():
    vectors, values = planted(noise=5.0)
    parts = judged(values)[0].split.parts
    validation, test, note = ridge_probe(vectors, values, parts)
    assert note.endswith("each feature scaled")
    train = parts == TRAIN
    penalty = float(note.split(" = ")[1].split()[0])
    scaler = StandardScaler().fit(vectors[train].astype(np.float64))
    model = Ridge(alpha=penalty * train.sum()).fit(scaler.transform(vectors[train]), values[train])
    # float32 features.
    np.testing.assert_allclose(test, model.predict(scaler.transform(vectors[parts == TEST])), rtol=1e-4)
    errors = []
    for other in (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0):
        model = Ridge(alpha=other * train.sum()).fit(scaler.transform(vectors[train]), values[train])
        predicted = model.predict(scaler.transform(vectors[parts == VALIDATION]))
        errors.append(np.mean((predicted - values[parts == VALIDATION]) ** 2))
    assert np.mean((validation - values[parts == VALIDATION]) ** 2) == pytest.approx(min(errors), rel=1e-3)


def test_a_line_without_noise_is_found_and_with_noise_up_to_the_noise():
    vectors, values = planted(noise=0.0)
    which, target = judged(values)
    assert found(list(ridge_scores(vectors, which, target)), "r2", "test").value > 0.999
    noisy = planted(noise=3.0)[1]
    which, target = judged(noisy)
    scores = list(ridge_scores(vectors, which, target))
    ceiling = 1 - 9 / noisy.var()
    row = found(scores, "r2", "test")
    low, high = np.quantile(row.draws, [0.025, 0.975])
    assert low < ceiling < high


def test_scores_are_those_of_scikit_learn_on_rows_that_have_a_number():
    vectors, values = planted(noise=3.0)
    which, target = judged(values, missing=range(0, N, 5))
    scores = list(ridge_scores(vectors, which, target))
    held = np.isfinite(target.values)
    parts = which.split.parts[held]
    _, predicted, _ = ridge_probe(vectors[held], values[held], parts)
    truth = values[held][parts == TEST]
    assert found(scores, "r2", "test").value == pytest.approx(r2_score(truth, predicted))
    assert found(scores, "mae", "test").value == pytest.approx(mean_absolute_error(truth, predicted))
    assert found(scores, "mae", "test").cells == len(truth)


def test_test_rows_choose_nothing():
    vectors, values = planted(noise=5.0)
    parts = judged(values)[0].split.parts
    changed = np.where(parts == TEST, -values, values)
    one, other = ridge_probe(vectors, values, parts), ridge_probe(vectors, changed, parts)
    assert one[2] == other[2]
    np.testing.assert_array_equal(one[1], other[1])


def test_shuffled_numbers_have_no_r2_above_chance():
    vectors, values = planted(noise=0.0)
    which, target = judged(np.random.default_rng(1).permutation(values))
    row = found(list(ridge_scores(vectors, which, target)), "r2", "test")
    assert row.value < 0.05


def test_a_constant_representation_is_the_mean_of_training_rows_and_says_so():
    _, values = planted()
    which, target = judged(values)
    constant = list(ridge_scores(np.ones((N, 3), np.float32), which, target))
    mean = list(ridge_scores(None, which, target))
    for metric in ("r2", "mae"):
        assert found(constant, metric, "test").value == found(mean, metric, "test").value
    assert found(constant, "r2", "test").note == CONSTANT
    assert found(mean, "r2", "test").value <= 0


def test_numbers_are_read_of_vectors_and_by_the_mean_and_of_no_other_baseline():
    vectors, values = planted()
    which, target = judged(values)

    def tasks(given, unseeing):
        return {each.task for each in judge(given, which, ("probe",), which.labels, (target,), unseeing=unseeing)}

    assert tasks(vectors, "layer") == {"probe", RIDGE}
    assert tasks(None, MEAN) == {RIDGE}
    assert tasks(None, MAJORITY) == {"probe"}
