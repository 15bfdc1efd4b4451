"""LISI against scib-metrics, against a root finder, and against neighbourhoods counted by hand."""

import os
import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import softmax
from scipy.stats import entropy

from xfm.metrics import lisi as module
from xfm.metrics.lisi import lisi
from xfm.metrics.neighbours import Neighbours, neighbours

# The same search in the same precision: only sums are taken in another order.
SAME = 1e-12
# A search ends anywhere within 1e-5 of the entropy that is sought. A relative error of LISI is about as large.
NEAR = 1e-4


@pytest.fixture(scope="module")
def scib():
    jax = pytest.importorskip("jax", reason="scib-metrics, the reference, is not installed")
    jax.config.update("jax_platforms", "cpu")  # a graphics card would be claimed as a whole
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        return pytest.importorskip("scib_metrics", reason="scib-metrics, the reference, is not installed")


def single(scib, found, codes):
    """LISI of scib-metrics."""
    known = scib.nearest_neighbors.NeighborsResults(indices=found.indices, distances=found.distances)
    return np.asarray(scib.lisi_knn(known, codes))


def double(scib, found, codes):
    """LISI of scib-metrics, in double precision."""
    import jax

    with jax.enable_x64(True):
        values = single(scib, found._replace(distances=found.distances.astype(np.float64)), codes)
    assert values.dtype == np.float64
    return values


def cells(seed, number, shares, width=6):
    """Batches of unequal shares, a little apart: vectors, batches."""
    rng = np.random.default_rng(seed)
    batch = rng.choice(len(shares), number, p=shares)
    centres = rng.normal(size=(len(shares), width))
    return (centres[batch] + rng.normal(size=(number, width))).astype(np.float32), batch


def circle(distances, cells=12):
    """Each cell's neighbours are itself and those that follow it on a circle, at the given distances."""
    indices = (np.arange(cells)[:, None] + np.arange(cells)) % cells
    return Neighbours(indices.astype(np.int32), np.tile(np.float32(distances), (cells, 1)))


def sought(distances, is_in_class, perplexity):
    """LISI of one cell from its others' distances, beta found by SciPy."""

    def weights(log_beta):
        return softmax(-np.exp(log_beta) * distances)

    root = brentq(lambda log_beta: entropy(weights(log_beta)) - np.log(perplexity), -30, 30, xtol=1e-12)
    return 1 / np.sum((is_in_class @ weights(root)) ** 2)


# Against scib-metrics


@pytest.mark.parametrize(
    ("number", "k", "shares"),
    [
        (400, 90, [0.5, 0.5]),
        (400, 90, [0.94, 0.05, 0.01]),
        (150, 31, [0.25, 0.25, 0.25, 0.25]),
        (40, 40, [0.8, 0.2]),
        (30, 6, [0.6, 0.4]),
    ],
)
@pytest.mark.slow
def test_every_cell_has_the_lisi_of_scib_metrics(scib, number, k, shares):
    for seed in range(3):
        x, batch = cells(seed, number, shares)
        found = neighbours(x, k)
        np.testing.assert_allclose(lisi(found, batch), double(scib, found, batch), rtol=SAME)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3])
def test_distances_of_any_unit_have_the_lisi_of_scib_metrics(scib, scale):
    x, batch = cells(0, 150, [0.7, 0.3])
    found = neighbours(np.float32(scale) * x, 31)
    np.testing.assert_allclose(lisi(found, batch), double(scib, found, batch), rtol=SAME)


def test_duplicates_have_the_lisi_of_scib_metrics(scib):
    x, batch = cells(0, 150, [0.7, 0.3])
    x[:50] = x[0]  # more than the perplexity
    x[50:60] = x[50]  # fewer
    found = neighbours(x, 31)
    np.testing.assert_allclose(lisi(found, batch), double(scib, found, batch), rtol=SAME)


@pytest.mark.slow
def test_single_precision_is_near_but_for_wide_representations(scib):
    # The one difference from scib-metrics. When the last line fails, the reference has been mended.
    batch = np.arange(150) % 2
    for width in (6, 1000):
        x = np.random.default_rng(0).normal(size=(150, width)).astype(np.float32)
        found = neighbours(x, 31)
        values = lisi(found, batch)
        np.testing.assert_allclose(values, double(scib, found, batch), rtol=SAME)
        is_off = abs(single(scib, found, batch) / values - 1) > NEAR
        assert is_off.mean() > 0.5 if width == 1000 else not is_off.any()


@pytest.mark.slow
def test_one_batch_has_no_scaled_score_in_scib_metrics_either(scib):
    x, _ = cells(1, 150, [1.0])
    found, one = neighbours(x, 31), np.zeros(150, dtype=int)
    np.testing.assert_allclose(lisi(found, one), 1)
    known = scib.nearest_neighbors.NeighborsResults(indices=found.indices, distances=found.distances)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # 0 / 0
        assert np.isnan(scib.ilisi_knn(known, one))


# Against a root finder


@pytest.mark.parametrize(("k", "away"), [(60, 0.0), (60, 30.0), (60, 1000.0), (6, 0.0)])
def test_lisi_is_that_of_the_perplexity_however_far_away_all_neighbours_are(k, away):
    x, batch = cells(2, 120, [0.5, 0.3, 0.2])
    found = neighbours(x, k)
    far = found.distances + np.float32(away) * (np.arange(k) > 0)  # the first is the cell itself
    values = lisi(Neighbours(found.indices, far), batch)
    for cell in range(0, 120, 12):
        is_in_class = batch[found.indices[cell, 1:]] == np.arange(3)[:, None]
        expected = sought(far[cell, 1:].astype(np.float64), is_in_class, k // 3)
        assert values[cell] == pytest.approx(expected, rel=NEAR)


# By hand


def test_the_nearest_four_of_perplexity_four_count_alike():
    # 12 neighbours: perplexity 4. Four are near and eight too far to weigh; 3 and 1 of four: 16 / (9 + 1).
    found = circle([0, *[1] * 4, *[1e6] * 7])
    codes = np.repeat([0, 1], 6)
    np.testing.assert_allclose(lisi(found, codes), [1, 1, 1.6, 2, 1.6, 1] * 2)
    np.testing.assert_allclose(lisi(found, np.arange(12)), 4)


def test_cells_at_one_point_weigh_alike_and_the_cell_itself_does_not_count():
    # 11 others: 5 of its own class and 6 of the other.
    found = circle([0] * 12)
    np.testing.assert_allclose(lisi(found, np.arange(12) % 2), 121 / (25 + 36))
    last = Neighbours(found.indices[:, ::-1], found.distances)  # wherever it stands
    np.testing.assert_allclose(lisi(last, np.arange(12) % 2), 121 / (25 + 36))


# Laws


def test_classes_in_turn_are_all_there_and_one_class_is_one():
    angles = 2 * np.pi * np.arange(360) / 360
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = neighbours(x, 90)
    # Of a cell's 89 others, two more are of the other class.
    np.testing.assert_allclose(lisi(found, np.arange(360) % 2), 2, atol=0.03)
    np.testing.assert_allclose(lisi(found, np.arange(360) % 3), 3, atol=0.05)
    np.testing.assert_allclose(lisi(found, np.zeros(360, dtype=int)), 1)


def test_names_of_classes_do_not_matter():
    x, batch = cells(3, 300, [0.4, 0.3, 0.2, 0.1])
    found, renamed = neighbours(x, 90), np.array([2, 0, 3, 1])[batch]
    np.testing.assert_allclose(lisi(found, renamed), lisi(found, batch), rtol=1e-12)


def test_a_power_of_two_changes_no_digit():
    x, batch = cells(4, 200, [0.5, 0.5])
    found = neighbours(x, 60)
    larger = Neighbours(found.indices, found.distances * np.float32(2**10))
    np.testing.assert_array_equal(lisi(larger, batch), lisi(found, batch))


def test_values_lie_between_one_and_the_number_of_classes():
    x, batch = cells(5, 300, [0.25] * 4)
    values = lisi(neighbours(x, 30), batch)
    assert 1 - 1e-12 < values.min() < values.max() < 4 + 1e-12


def test_chunks_change_nothing(monkeypatch):
    x, batch = cells(6, 200, [0.5, 0.5])
    found = neighbours(x, 60)
    whole = lisi(found, batch)
    monkeypatch.setattr(module, "CELLS_AT_ONCE", 7)
    np.testing.assert_array_equal(lisi(found, batch), whole)


def test_memory_does_not_grow_with_the_number_of_classes():
    cells = 20_000
    indices = ((np.arange(cells)[:, None] + np.arange(12)) % cells).astype(np.int32)
    found = Neighbours(indices, np.tile(np.arange(12, dtype=np.float32), (cells, 1)))
    tracemalloc.start()
    values = lisi(found, np.arange(cells))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24  # a table of 2,048 cells by 20,000 classes would take 328 MB
    assert values.min() > 1


# What is refused, and what is not needed


def test_too_few_neighbours_and_other_cells_are_refused():
    x, batch = cells(0, 30, [0.5, 0.5])
    with pytest.raises(ValueError, match="LISI of 5 neighbours: at least 6 are needed"):
        lisi(neighbours(x, 5), batch)
    with pytest.raises(ValueError, match="LISI of 30 cells needs as many classes, 29 are given"):
        lisi(neighbours(x, 9), batch[:-1])


@pytest.mark.slow
def test_batch_mixing_imports_neither_jax_nor_scib_metrics():
    code = """
import sys
import numpy as np
from xfm.metrics.integration import integration_scores
from xfm.metrics.neighbours import neighbours
from xfm.metrics.resampling import GroupDraws
x = np.random.default_rng(0).normal(size=(120, 3)).astype(np.float32)
batch, labels = np.arange(120) % 2, np.arange(120) // 60
scores = integration_scores(x, neighbours(x), batch, labels, GroupDraws(np.arange(120), 0, 2), before=x)
assert all(score.value is not None for score in scores.values()), scores
print(sorted({"jax", "jaxlib", "chex", "scib_metrics"} & set(sys.modules)))
"""
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}  # compiling umap-learn takes longer than running it
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
