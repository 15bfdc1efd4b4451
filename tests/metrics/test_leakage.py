"""Fresh classifiers on frozen features against scikit-learn, and on features whose truth is planted."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from xfm.metrics.leakage import auroc, fresh_predictions, leakage, leakage_scores, why_undefined
from xfm.metrics.resampling import GroupDraws


def donors(rng, effect, n_donors=12, cells=30, dim=16, noise=1.0):
    """Features of donors, with or without a direction that all donors of a sex share."""
    donor = np.repeat(np.arange(n_donors), cells)
    sex = donor % 2
    shift = 2.0 * rng.normal(size=(n_donors, dim))
    features = shift[donor] + noise * rng.normal(size=(len(donor), dim))
    features[:, 0] = effect * (2 * sex - 1) + rng.normal(size=len(donor))
    return features, sex, donor


def test_auroc_is_that_of_scikit_learn_with_ties():
    rng = np.random.default_rng(0)
    codes, scores = rng.integers(0, 2, 200), np.round(rng.random(200), 1)
    found = auroc(scores, codes, GroupDraws(rng.integers(0, 9, 200), 0, 20))
    assert found.value == pytest.approx(roc_auc_score(codes, scores))


def test_every_draw_is_the_auroc_of_the_drawn_groups():
    """Groups drawn twice count twice, those not drawn not at all; a draw with one class has none."""
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 5, 120)
    codes, scores = (groups > 2).astype(int), rng.normal(size=120) + (groups > 2)
    draws = GroupDraws(groups, 3, 30)
    found = auroc(scores, codes, draws)
    weights = np.concatenate(list(draws.blocks()))
    undefined = 0
    for value, weight in zip(found.draws, weights, strict=True):
        rows = np.repeat(np.arange(120), weight[draws.codes])
        if len(np.unique(codes[rows])) < 2:
            undefined += 1
            assert np.isnan(value)
        else:
            assert value == pytest.approx(roc_auc_score(codes[rows], scores[rows]))
    assert 0 < undefined < 30


def test_auroc_of_three_classes_is_the_mean_of_each_against_the_rest():
    rng = np.random.default_rng(2)
    codes, scores = rng.integers(0, 3, 90), rng.random((90, 3))
    scores /= scores.sum(axis=1, keepdims=True)
    found = auroc(scores, codes, GroupDraws(np.arange(90), 0, 5)).value
    assert found == pytest.approx(roc_auc_score(codes, scores, multi_class="ovr", average="macro"))


def test_a_shared_direction_leaks_and_a_donors_own_position_does_not():
    """Whoever has seen the donor knows the sex by heart; over donors that were held out only the shared part tells."""
    found = {}
    for effect in (0.0, 5.0):
        features, sex, donor = donors(np.random.default_rng(5), effect)
        read = leakage(features, sex, donor, 0)
        found[effect] = roc_auc_score(sex, read)
        seen = fresh_predictions(features, sex, 0)
        assert balanced_accuracy_score(sex, seen) > 0.9
    assert found[5.0] > 0.95
    assert found[0.0] < 0.75


def test_no_donor_is_on_both_sides_of_a_fold():
    """One-hot donors: the sex of a donor that was held out cannot be read, although every seen one's can."""
    donor = np.repeat(np.arange(10), 20)
    sex = donor % 2
    read = leakage(np.eye(10)[donor], sex, donor, 0)
    assert roc_auc_score(sex, read) <= 0.5
    assert balanced_accuracy_score(sex, fresh_predictions(np.eye(10)[donor], sex, 0)) == 1.0


def test_leakage_is_the_same_for_the_same_seed_and_in_the_order_of_the_rows():
    features, sex, donor = donors(np.random.default_rng(7), 1.0)
    one, two = (leakage(features, sex, donor, 4) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, leakage(features, sex, donor, 5))
    assert one.shape == sex.shape
    assert leakage(features, donor % 3, donor, 4).shape == (len(sex), 3)
    assert ((one > 0) & (one < 1)).all()


def test_constant_features_say_nothing():
    features, sex, donor = donors(np.random.default_rng(8), 1.0)
    found = leakage_scores(leakage(np.ones_like(features), sex, donor, 0), sex, GroupDraws(donor, 0, 10))
    assert found["auroc"].value == pytest.approx(0.5)


def test_leakage_scores_are_those_of_scikit_learn():
    features, sex, donor = donors(np.random.default_rng(9), 1.0)
    read = leakage(features, sex, donor, 0)
    found = leakage_scores(read, sex, GroupDraws(donor, 0, 50))
    assert found["auroc"].value == pytest.approx(roc_auc_score(sex, read))
    assert found["balanced_accuracy"].value == pytest.approx(balanced_accuracy_score(sex, read > 0.5))
    assert found["auroc"].draws.shape == (50,)


@pytest.mark.parametrize(
    ("codes", "groups", "words"),
    [([0, 0, 0], [0, 1, 2], "1 class"), ([0, 0, 1, 1], [0, 1, 2, 2], "1 group"), ([0, 1, 0, 1], [0, 1, 2, 3], "")],
)
def test_one_class_or_one_donor_of_a_class_is_not_defined(codes, groups, words):
    codes, groups = np.array(codes), np.array(groups)
    why = why_undefined(codes, groups)
    assert words in why
    assert bool(why) == bool(words)
    if words:
        with pytest.raises(ValueError, match=words):
            leakage(np.ones((len(codes), 2)), codes, groups, 0)
