"""Batch mixing against scib-metrics on the same input, and against what mixed and separated batches must give."""

import warnings

import numpy as np
import pytest
import sklearn.metrics
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import NearestNeighbors

from xfm.metrics import integration as integration_module
from xfm.metrics import kbet
from xfm.metrics.integration import SCORES, integration_scores, pcr_measure, principal_coordinates
from xfm.metrics.kbet import kbet_acceptance
from xfm.metrics.lisi import lisi
from xfm.metrics.neighbours import Neighbours, connectivities, neighbours
from xfm.metrics.resampling import GroupDraws

# Labels of equal size: jax, of the reference, compiles for every new shape.
CELLS, N_LABELS, WIDTH = 360, 3, 8
LABELS = np.repeat(np.arange(N_LABELS), CELLS // N_LABELS)


@pytest.fixture(scope="module")
def scib():
    jax = pytest.importorskip("jax", reason="scib-metrics, the reference, is not installed")
    jax.config.update("jax_platforms", "cpu")  # a graphics card would be claimed as a whole
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        return pytest.importorskip("scib_metrics", reason="scib-metrics, the reference, is not installed")


def cells(batch_effect=0.0, batches=2, seed=0):
    """Three labels well apart, and batches at random, shifted along a direction of their own: vectors, batches."""
    rng = np.random.default_rng(seed)
    batch = rng.integers(0, batches, CELLS)
    x = 6 * rng.normal(size=(N_LABELS, WIDTH))[LABELS] + rng.normal(size=(CELLS, WIDTH))
    return (x + batch_effect * rng.normal(size=(batches, WIDTH))[batch]).astype(np.float32), batch


def scored(x, batch, labels=LABELS, groups=None, resamples=5, found=None, **more):
    groups = np.arange(len(x)) if groups is None else groups
    found = neighbours(x) if found is None else found
    return integration_scores(x, found, batch, labels, GroupDraws(groups, 0, resamples), **more)


def known(found):
    from scib_metrics.nearest_neighbors import NeighborsResults

    return NeighborsResults(indices=found.indices, distances=found.distances)


# Against scib-metrics


@pytest.mark.slow
@pytest.mark.parametrize("batch_effect", [0.0, 0.6, 1.5])
def test_scores_are_those_of_scib_metrics(scib, batch_effect, monkeypatch):
    x, batch = cells(batch_effect)
    found, ours = neighbours(x), scored(x, batch)
    assert ours["asw_batch"].value == pytest.approx(scib.silhouette_batch(x, LABELS, batch), abs=1e-5)
    assert ours["ilisi"].value == pytest.approx(scib.ilisi_knn(known(found.first(90)), batch), abs=1e-5)
    assert ours["clisi"].value == pytest.approx(scib.clisi_knn(known(found.first(90)), LABELS), abs=1e-5)
    theirs = scib.utils.principal_component_regression(x, batch, categorical=True, n_components=WIDTH)
    assert ours["pcr"].value == pytest.approx(theirs, rel=1e-3, abs=1e-5)

    # Its kBET with two repairs: exact neighbours (its approximate search would be compiled for 20 s), and a steady
    # state that weighs 1 wherever its eigenvalue rounds to (here label 0 would get 16,777,215 instead).
    def exact(coordinates, n_neighbors):
        search = NearestNeighbors(n_neighbors=n_neighbors, algorithm="brute").fit(coordinates)
        distances, indices = search.kneighbors(coordinates)
        return scib.nearest_neighbors.NeighborsResults(indices=indices, distances=distances)

    from scib_metrics.utils import _diffusion_nn

    solve = _diffusion_nn._compute_eigen

    def rounded(*given, **named):
        eigenvalues, vectors = solve(*given, **named)
        return np.where(eigenvalues > 1 - 1e-6, np.float32(1), eigenvalues), vectors

    monkeypatch.setattr(_diffusion_nn, "_compute_eigen", rounded)
    monkeypatch.setattr(scib.nearest_neighbors, "pynndescent", exact)
    theirs = scib.kbet_per_label(known(found.first(50)), batch, LABELS)
    # One cell at the edge of significance, tested in single precision there, is 1 / 360.
    assert ours["kbet"].value == pytest.approx(theirs, abs=2 / CELLS)
    assert {0.0: 0.9, 0.6: 0.2, 1.5: 0.0}[batch_effect] <= ours["kbet"].value
    assert {0.0: 1.0, 0.6: 0.8, 1.5: 0.2}[batch_effect] >= ours["kbet"].value


@pytest.mark.slow
def test_pcr_comparison_is_that_of_scib_metrics(scib):
    before, batch = cells(3.0)
    after, _ = cells(0.5)
    theirs = scib.pcr_comparison(before, after, batch, categorical=True, n_components=WIDTH)
    assert 0.1 < theirs < 0.99
    ours = scored(after, batch, before=before)
    assert tuple(ours) == (*SCORES, "pcr_comparison")
    assert ours["pcr_comparison"].value == pytest.approx(theirs, abs=1e-4)
    assert scored(before, batch, before=after)["pcr_comparison"].value == 0


def test_kbet_tests_large_pieces_of_a_label_and_rejects_a_label_in_small_ones(monkeypatch):
    x, batch = cells()
    x[LABELS == 0] += 60 * (np.arange(120) >= 60)[:, None]  # two pieces of 60, each large enough
    x[LABELS == 1] += 60 * (np.arange(120) // 12)[:, None]  # ten small ones: all cells are rejected
    found = neighbours(x, 12)
    monkeypatch.setattr(kbet, "NEIGHBOURS", 12)
    values = kbet_acceptance(found, batch, LABELS)
    assert (values[LABELS == 1] == 0).all()
    assert np.isin(values[LABELS != 1], [0, 1]).all()
    assert values[LABELS == 0].mean() > 0.8


# Laws


def test_random_batches_are_mixed_and_separated_ones_are_not():
    mixed, separated = (scored(*cells(effect)) for effect in (0.0, 100.0))
    # iLISI of 30 effective neighbours in two random halves stays below 1: shares of 30 drawn cells are not even.
    least = {"asw_batch": 0.95, "ilisi": 0.85, "kbet": 0.9, "entropy_per_cell": 0.95, "clisi": 0.99}
    for name, value in least.items():
        assert mixed[name].value > value
    assert mixed["pcr"].value < 0.02
    for name, value in {"asw_batch": 0.1, "ilisi": 0.01, "kbet": 0.01}.items():
        assert separated[name].value < value
    assert separated["pcr"].value > 0.95
    assert separated["entropy_per_cell"].value < mixed["entropy_per_cell"].value


def test_entropy_is_that_of_the_batches_among_200_neighbours():
    x, batch = cells(1.0, batches=3)
    ours = scored(x, batch)["entropy_per_cell"].value
    _, indices = NearestNeighbors(n_neighbors=200, algorithm="brute").fit(x).kneighbors(x)
    shares = np.stack([(batch[indices] == each).mean(axis=1) for each in range(3)], axis=1)
    entropy = -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=1) / np.log(3)
    assert ours == pytest.approx(entropy.mean())


@pytest.mark.parametrize("shape", [(60, 5), (60, 80), (40, 200)])
def test_pcr_is_the_share_of_variance_that_a_regression_on_batches_explains(shape, monkeypatch):
    monkeypatch.setattr(integration_module, "BLOCK", 16)
    rng = np.random.default_rng(0)
    batch = np.sort(rng.integers(0, 4, shape[0])) * 3
    x = (rng.normal(size=shape) + rng.normal(size=(10, shape[1]))[batch] + 30).astype(np.float32)
    components = min(50, *shape)
    fitted = PCA(components, svd_solver="full").fit(x.astype(np.float64))
    theirs = fitted.transform(x)
    one_hot = np.eye(10)[batch]
    predicted = LinearRegression().fit(one_hot, theirs).predict(one_hot)
    expected = sklearn.metrics.r2_score(theirs, predicted, multioutput="variance_weighted")
    found = pcr_measure(x, batch, np.zeros(len(x), int)).statistic(np.ones((1, 1), np.uint16))
    assert found == pytest.approx(expected)
    values, share = principal_coordinates(x)
    np.testing.assert_allclose(abs(values), abs(theirs), atol=1e-6)
    assert share == pytest.approx(fitted.explained_variance_ratio_.sum())


# Resamples


@pytest.mark.usefixtures("bootstrap_of_few_groups")
def test_draws_are_the_scores_of_repeated_cells():
    x, batch = cells(1.0)
    groups = np.random.default_rng(1).integers(0, 20, CELLS)
    scores = scored(x, batch, groups=groups, resamples=20)
    found = neighbours(x)
    mixing, purity = lisi(found.first(90), batch), lisi(found.first(90), LABELS)
    accepted, samples, inside = kbet_acceptance(found, batch, LABELS), np.zeros(CELLS), PCA(WIDTH).fit_transform(x)
    for label in range(N_LABELS):
        members = np.flatnonzero(label == LABELS)
        samples[members] = 1 - abs(sklearn.metrics.silhouette_samples(x[members], batch[members]))
    for number, row in enumerate(np.vstack(list(GroupDraws(groups, 0, 20).blocks()))):
        cell = np.repeat(np.arange(CELLS), row[groups])
        labels, one_hot = LABELS[cell], np.eye(2)[batch[cell]]
        predicted = LinearRegression().fit(one_hot, inside[cell]).predict(one_hot)
        expected = {
            "asw_batch": np.mean([samples[cell][labels == each].mean() for each in set(labels)]),
            "kbet": np.mean([accepted[cell][labels == each].mean() for each in set(labels)]),
            "ilisi": np.median(mixing[cell]) - 1,
            "clisi": (N_LABELS - np.median(purity[cell])) / (N_LABELS - 1),
            "pcr": sklearn.metrics.r2_score(inside[cell], predicted, multioutput="variance_weighted"),
        }
        for name, value in expected.items():
            assert scores[name].draws[number] == pytest.approx(value, abs=2e-5)
    assert np.isfinite(scores["entropy_per_cell"].draws).all()


@pytest.mark.usefixtures("bootstrap_of_few_groups")
def test_a_resample_of_one_batch_has_no_share_that_batches_explain():
    x, batch = cells(1.0)
    drawn = scored(x, batch, groups=batch, resamples=40)["pcr"].draws
    alone = [set(np.flatnonzero(row)) != {0, 1} for row in np.vstack(list(GroupDraws(batch, 0, 40).blocks()))]
    np.testing.assert_array_equal(np.isnan(drawn), alone)
    assert 0 < sum(alone) < 40


@pytest.mark.slow
def test_kbet_is_the_same_every_time():
    x, batch = cells(0.5)
    x, batch, labels = np.tile(x, (4, 1)), np.tile(batch, 4), np.zeros(4 * CELLS, dtype=int)
    x += np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    found = neighbours(x, 50)
    first = kbet_acceptance(found, batch, labels)  # enough cells for the iterative solver
    np.testing.assert_array_equal(kbet_acceptance(found, batch, labels), first)
    assert 0 < first.mean() < 1
    graph = connectivities(found, 50)
    once, again = (kbet._diffusion_coordinates(graph) for _ in range(2))
    np.testing.assert_array_equal(once, again)


# What data may look like


@pytest.mark.usefixtures("bootstrap_of_few_groups")
def test_cells_without_a_batch_or_a_label_are_left_out_as_if_they_were_not_there():
    x, batch = cells(1.0)
    lacks_batch, lacks_label = np.arange(CELLS) % 9 == 0, np.arange(CELLS) % 7 == 0
    held = ~lacks_batch & ~lacks_label
    groups = np.arange(CELLS) // 20  # every group keeps cells, so that resamples are the same
    batches, labels = np.where(lacks_batch, -1, batch), np.where(lacks_label, -1, LABELS)
    some = scored(x, batches, labels, groups=groups)
    rest = scored(x[held], batch[held], LABELS[held], groups=groups[held])
    for name in SCORES:
        assert some[name].value == pytest.approx(rest[name].value)
        np.testing.assert_allclose(some[name].draws, rest[name].draws)


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_a_constant_representation_has_no_mixing(noise):
    x, batch = cells()
    same = np.tile(x[:1], (CELLS, 1)) + noise * x
    scores = scored(same, batch)
    assert [(score.value, score.note) for score in scores.values()] == [(None, "constant representation")] * len(SCORES)


def test_one_batch_cannot_be_mixed():
    x, _ = cells()
    scores = scored(x, np.full(CELLS, 4), before=x)
    assert scores.pop("clisi").value is not None
    assert {(score.value, score.note) for score in scores.values()} == {(None, "one batch only")}


def test_batches_nested_in_labels_leave_scores_within_labels_undefined():
    x, _ = cells()
    scores = scored(x, LABELS * 2 + 1)
    assert (scores["asw_batch"].value, scores["asw_batch"].note) == (None, "all labels lie in one batch")
    assert scores["kbet"].value is None
    assert scores["kbet"].note == "all labels cannot be tested (one batch, or fewer than 11 cells)"
    assert scores["pcr"].value > 0.9


def test_labels_that_do_not_count_are_counted_in_the_note():
    x, batch = cells()
    labels = LABELS.copy()
    batch[labels == 2] = 0
    labels[:5] = 3  # five cells: enough for a silhouette, too few for kBET
    batch[:5] = [0, 1, 0, 1, 0]
    scores = scored(x, batch, labels)
    assert scores["asw_batch"].note == "1 of 4 labels lie in one batch and do not count"
    assert scores["kbet"].note == "2 of 4 labels cannot be tested (one batch, or fewer than 11 cells) and do not count"


def test_batches_of_one_cell_break_nothing():
    x, batch = cells()
    batch = np.where(np.arange(CELLS) % 60 == 0, np.arange(CELLS) + 10, batch)
    scores = scored(x, batch)
    assert all(score.value is not None for score in scores.values())
    alone = scored(x, np.arange(CELLS))
    assert alone["asw_batch"].value is None  # as many batches as cells in each label
    assert alone["pcr"].value == pytest.approx(1)


def test_few_cells_and_few_neighbours_say_so():
    x, batch = cells()
    few = np.arange(0, CELLS, 12)  # 30 cells
    scores = scored(x[few], batch[few], LABELS[few])
    assert scores["ilisi"].value is not None
    assert scores["ilisi"].note == scores["clisi"].note == "30 neighbours, 90 are usual"
    assert scores["entropy_per_cell"].value is not None  # all cells there are
    scarce = scored(x, batch, found=neighbours(x, 5))
    assert (scarce["ilisi"].value, scarce["ilisi"].note) == (None, "5 neighbours, 6 are needed")
    assert scarce["entropy_per_cell"].note == "5 neighbours, 200 are needed"


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_hardly_any_cells_break_nothing(number):
    x, batch = cells()
    labels, batch = np.full(CELLS, -1), np.arange(CELLS) % 2
    labels[:number] = 0
    scores = scored(x, batch, labels)
    assert tuple(scores) == SCORES
    if number < 2:
        assert {score.note for score in scores.values()} == {"fewer than two cells have a batch and a label"}


def test_sizes_that_do_not_match_are_refused():
    x, batch = cells()
    with pytest.raises(ValueError, match=r"\[360, 360, 359, 360, 360\] cells do not match"):
        scored(x, batch[:-1])
    found = Neighbours(*(each[:-1] for each in neighbours(x)))
    with pytest.raises(ValueError, match=r"\[360, 359"):
        scored(x, batch, found=found)
