"""scVI as a baseline: it learns from training cells alone. Skipped where scvi-tools is not installed."""

import random
import sys

import numpy as np
import pytest
import scipy.sparse
import torch

from xfm.core.errors import EnvironmentProblem, Refused
from xfm.sources.pbmc import pbmc_counts
from xfm.studies.evaluate.scvi_baseline import check_available, scvi_baseline


@pytest.fixture(scope="module")
def cells():
    pytest.importorskip("scvi")
    return pbmc_counts()


@pytest.fixture(scope="module")
def is_train():
    return np.random.default_rng(0).random(700) < 0.6


def latent(counts, is_train, batches=None, seed=0, epochs=3):
    batches = ["one"] * counts.shape[0] if batches is None else batches
    return scvi_baseline(scipy.sparse.csr_matrix(counts), batches, is_train, seed, max_epochs=epochs)


def test_test_cells_have_no_say_in_where_training_cells_lie(cells, is_train):
    counts = cells.X.toarray()
    one = latent(counts, is_train)
    assert (one.shape, one.dtype) == ((700, 30), np.float32)
    counts[~is_train] = np.random.default_rng(1).poisson(2, ((~is_train).sum(), counts.shape[1]))
    two = latent(counts, is_train)
    np.testing.assert_array_equal(one[is_train], two[is_train])
    assert np.abs(one[~is_train] - two[~is_train]).max() > 0.1


def test_a_batch_without_training_cells_has_a_place(cells, is_train):
    batches = np.where(np.arange(700) % 2 == 0, "a", "b")
    one = latent(cells.X, is_train, batches)
    np.testing.assert_array_equal(one, latent(cells.X, is_train, np.where(is_train, batches, "new")))
    other = latent(cells.X, is_train, np.roll(batches, 1))
    assert np.abs(one - other).max() > 1e-4  # the decoder was told, so training went another way


def test_the_seed_decides_and_the_global_generators_stay_as_they_were(cells, is_train):
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    one = latent(cells.X, is_train, seed=3)
    drawn = random.random(), np.random.random(), float(torch.rand(1))
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    assert drawn == (random.random(), np.random.random(), float(torch.rand(1)))
    np.testing.assert_array_equal(one, latent(cells.X, is_train, seed=3))
    assert np.abs(one - latent(cells.X, is_train, seed=4)).max() > 0.1


@pytest.mark.parametrize("n", [3, 129])
def test_no_training_cell_is_left_alone_in_a_minibatch(cells, n):
    assert np.isfinite(latent(cells.X, np.arange(700) < n, epochs=1)).all()


def test_types_of_unseen_cells_can_be_read_from_it(cells, is_train):
    from sklearn.neighbors import KNeighborsClassifier

    types = cells.obs["bulk_labels"].to_numpy()
    found = latent(cells.X, is_train, epochs=60)
    score = KNeighborsClassifier(15).fit(found[is_train], types[is_train]).score(found[~is_train], types[~is_train])
    _, sizes = np.unique(types[is_train], return_counts=True)
    assert score > 2 * sizes.max() / is_train.sum()


def test_values_that_are_no_counts_are_refused(cells, is_train):
    with pytest.raises(Refused, match="NOT_COUNTS"):
        latent(cells.X * 0.5, is_train)
    with pytest.raises(Refused, match=r"TOO_FEW_CELLS.*found 2"):
        latent(cells.X, np.arange(700) < 2)


def test_without_the_package_the_extra_is_named(monkeypatch, is_train):
    monkeypatch.setitem(sys.modules, "scvi", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'xfm\[scvi\]'"):
        scvi_baseline(scipy.sparse.csr_matrix((700, 3)), ["a"] * 700, is_train, 0)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'xfm\[scvi\]'"):
        check_available()
