"""Fresh classifiers on frozen features against scikit-learn, and on features whose truth is planted."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from threadpoolctl import threadpool_limits

from xfm.metrics.leakage import (
    OutOfFold,
    area_error,
    auroc,
    fresh_predictions,
    leakage,
    leakage_scores,
    of_one_class,
    why_undefined,
)
from xfm.metrics.resampling import GroupDraws


def donors(rng, effect, n_donors=12, cells=30, dim=16, noise=1.0):
    """Features of donors, with or without a direction that all donors of a sex share."""
    donor = np.repeat(np.arange(n_donors), cells)
    sex = donor % 2
    shift = 2.0 * rng.normal(size=(n_donors, dim))
    features = shift[donor] + noise * rng.normal(size=(len(donor), dim))
    features[:, 0] = effect * (2 * sex - 1) + rng.normal(size=len(donor))
    return features, sex, donor


def together(scores):
    """All cells read by one classifier, once."""
    both = np.stack([1 - scores, scores], axis=1) if scores.ndim == 1 else scores
    return OutOfFold(both[None], np.zeros((1, len(scores)), int))


def read_auroc(features, codes, groups, seed):
    return auroc(leakage(features, codes, groups, seed), codes, GroupDraws(groups, 0, 0)).value


def test_auroc_is_that_of_scikit_learn_with_ties():
    rng = np.random.default_rng(0)
    codes, scores = rng.integers(0, 2, 200), np.round(rng.random(200), 1)
    found = auroc(together(scores), codes, GroupDraws(rng.integers(0, 9, 200), 0, 20))
    assert found.value == pytest.approx(roc_auc_score(codes, scores))


@pytest.mark.usefixtures("bootstrap_of_few_groups")
def test_every_draw_is_the_auroc_of_the_drawn_groups():
    """Groups drawn twice count twice, those not drawn not at all; a draw with one class has none."""
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 5, 120)
    codes, scores = (groups > 2).astype(int), rng.normal(size=120) + (groups > 2)
    draws = GroupDraws(groups, 3, 30)
    found = auroc(together(scores), codes, draws)
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
    found = auroc(together(scores), codes, GroupDraws(np.arange(90), 0, 5)).value
    assert found == pytest.approx(roc_auc_score(codes, scores, multi_class="ovr", average="macro"))


def test_a_shared_direction_leaks_and_a_donors_own_position_does_not():
    """Whoever has seen the donor knows the sex by heart; over donors that were held out only the shared part tells."""
    found = {}
    for effect in (0.0, 5.0):
        features, sex, donor = donors(np.random.default_rng(5), effect)
        found[effect] = read_auroc(features, sex, donor, 0)
        seen = fresh_predictions(features, sex, 0)
        assert balanced_accuracy_score(sex, seen) > 0.9
    assert found[5.0] > 0.85
    assert found[0.0] < 0.75


def test_no_donor_is_on_both_sides_of_a_fold():
    """One-hot donors: the sex of a donor that was held out cannot be read, although every seen one's can."""
    donor = np.repeat(np.arange(10), 20)
    sex = donor % 2
    assert read_auroc(np.eye(10)[donor], sex, donor, 0) == pytest.approx(0.5)
    assert balanced_accuracy_score(sex, fresh_predictions(np.eye(10)[donor], sex, 0)) == 1.0


def test_leakage_is_the_same_for_the_same_seed_and_in_the_order_of_the_rows():
    features, sex, donor = donors(np.random.default_rng(7), 1.0)
    one, two = (leakage(features, sex, donor, 4) for _ in range(2))
    np.testing.assert_array_equal(one.probabilities, two.probabilities)
    assert not np.array_equal(one.folds, leakage(features, sex, donor, 5).folds)
    assert one.probabilities.shape == (5, len(sex), 2)
    assert leakage(features, donor % 3, donor, 4, repeats=2).probabilities.shape == (2, len(sex), 3)
    np.testing.assert_allclose(one.probabilities.sum(axis=2), 1)


def test_repeats_and_seeds_have_other_folds_each_with_every_class_although_donors_differ_in_size():
    """Folds by size (StratifiedGroupKFold) are the same every time; the supports are those of a published test set."""
    sizes = np.array([439, 480, 288, 193, 663, 381, 687, 569, 544, 412, 201, 332, 359, 808]) // 20
    donor = np.repeat(np.arange(14), sizes)
    sex = (donor % 3 == 1).astype(int)  # five of fourteen
    partitions = set()
    for seed in range(3):
        for folds in leakage(np.zeros((len(donor), 1)), sex, donor, seed).folds:
            assert set(folds) == set(range(5))
            for fold in range(5):
                assert set(sex[folds == fold]) == {0, 1}
            assert all(len(set(folds[donor == each])) == 1 for each in range(14))
            partitions.add(frozenset(frozenset(donor[folds == fold].tolist()) for fold in range(5)))
    assert len(partitions) == 15


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[8] * 20, [11, 12, 7, 5, 16, 9, 17, 14, 13, 10, 5, 8, 9, 20], [10] * 6])
def test_where_nothing_leaks_both_scores_are_chance_in_the_mean(sizes):
    """Donors of their own place and no place of a sex; five of the fourteen are of one sex, else half.

    Ranking the scores of all folds of StratifiedGroupKFold together gives .468, .448 and .471 on these draws, three
    and four standard errors below chance with twenty and fourteen donors.
    """
    donor = np.repeat(np.arange(len(sizes)), sizes)
    sex, found = (donor % 3 == 1).astype(int) if len(sizes) == 14 else donor % 2, []
    with threadpool_limits(1):  # fits of a few rows
        for seed in range(150):
            rng = np.random.default_rng(seed)
            features = rng.normal(size=(len(sizes), 1))[donor] + rng.normal(size=(len(donor), 1))
            scores = leakage_scores(leakage(features, sex, donor, seed, repeats=1), sex, GroupDraws(donor, 0, 0))
            found.append([scores[name].value for name in ("auroc", "balanced_accuracy")])
    error = np.std(found, axis=0) / len(found) ** 0.5
    assert (np.abs(np.mean(found, axis=0) - 0.5) < 2.5 * error).all()


@pytest.mark.usefixtures("bootstrap_of_few_groups")
def test_pairs_count_only_where_they_were_held_out_together():
    """Two repeats of two folds by hand: groups 0, 1 are positive, 2, 3 negative, one cell each."""
    codes = np.array([1, 1, 0, 0])
    positive = np.array([[0.9, 0.2, 0.8, 0.1], [0.3, 0.7, 0.4, 0.3]])
    folds = np.array([[0, 1, 0, 1], [0, 1, 1, 0]])
    read = OutOfFold(np.stack([1 - positive, positive], axis=2), folds)
    draws = GroupDraws(np.arange(4), 0, 200)
    found = auroc(read, codes, draws)
    assert found.value == pytest.approx((1 + 1 + 1 + 0.5) / 4)  # (0, 2), (1, 3); (1, 2), and the tie of (0, 3)
    won = {(0, 2): 1.0, (1, 3): 1.0, (1, 2): 1.0, (0, 3): 0.5}
    for value, w in zip(found.draws, np.concatenate(list(draws.blocks())).astype(float), strict=True):
        pairs = sum(w[g] * w[h] for g, h in won)
        if pairs == 0:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(sum(one * w[g] * w[h] for (g, h), one in won.items()) / pairs)
    once = auroc(OutOfFold(read.probabilities[:1], folds[:1]), codes, draws)
    alone = [np.isnan(value) for value in once.draws]
    assert sum(alone) > sum(np.isnan(found.draws)), "a draw of 0 and 3 alone has no pair of the first repeat"


def test_groups_of_several_classes_are_told_and_refused():
    codes, groups = np.array([0, 0, 1, 1, 0]), np.array([7, 7, 7, 8, 9])
    assert of_one_class(codes, groups).tolist() == [False, False, False, True, True]
    assert "1 groups have several classes" in why_undefined(codes, groups)


def test_constant_features_say_nothing():
    features, sex, donor = donors(np.random.default_rng(8), 1.0)
    found = leakage_scores(leakage(np.ones_like(features), sex, donor, 0), sex, GroupDraws(donor, 0, 10))
    assert found["auroc"].value == pytest.approx(0.5)


def test_leakage_scores_are_those_of_scikit_learn():
    features, sex, donor = donors(np.random.default_rng(9), 1.0)
    read = leakage(features, sex, donor, 0)
    found = leakage_scores(read, sex, GroupDraws(donor, 0, 50))
    areas, weights, accuracies = [], [], []
    for scores, folds in zip(read.probabilities, read.folds, strict=True):
        for fold in np.unique(folds):
            held = folds == fold
            areas.append(roc_auc_score(sex[held], scores[held, 1]))
            weights.append(sex[held].sum() * (1 - sex[held]).sum())
        accuracies.append(balanced_accuracy_score(sex, scores.argmax(axis=1)))
    assert found["auroc"].value == pytest.approx(np.average(areas, weights=weights))
    assert found["balanced_accuracy"].value == pytest.approx(np.mean(accuracies))
    assert found["auroc"].draws.shape == found["balanced_accuracy"].draws.shape == (50,)


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


def test_the_error_of_an_area_without_leakage_is_mann_whitneys():
    # Ten donors against ten: the rank sum has a variance of n m (n + m + 1) / 12, and an area is it over n m.
    assert area_error(0.5, 10, 10) == pytest.approx(np.sqrt(21 / 1200))
    assert area_error(0.6, 10, 10) == area_error(0.4, 10, 10) == area_error(0.5, 10, 10)  # may be luck
    # Hanley and McNeil by hand for an area of .95, taken at .95 - .1323.
    a = 0.95 - np.sqrt(21 / 1200)
    by_hand = a * (1 - a) + 9 * (a / (2 - a) - a**2) + 9 * (2 * a**2 / (1 + a) - a**2)
    assert area_error(0.95, 10, 10) == pytest.approx(np.sqrt(by_hand / 100))


@pytest.mark.parametrize("seed", range(4))
def test_the_interval_of_leakage_is_as_wide_as_so_few_donors_make_it(seed):
    """Twenty donors whose cells say nothing of them: not the spread of what one set of classifiers said, but that of
    the area over data sets, .13 to either side times Student's 2.1."""
    donors = np.repeat(np.arange(20), 10)
    codes, rng = donors % 2, np.random.default_rng(seed)
    vectors = rng.normal(size=(20, 4))[donors] + 0.5 * rng.normal(size=(200, 4))
    found = leakage_scores(leakage(vectors, codes, donors, 0), codes, GroupDraws(donors, 0))["auroc"]
    low, high = np.quantile(found.draws, [0.025, 0.975])
    assert high - low > 0.99 * 2 * 2.093 * area_error(found.value, 10, 10)
