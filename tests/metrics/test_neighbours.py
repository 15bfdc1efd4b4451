"""Neighbours against all distances in float64; the graph against scanpy's."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from xfm.metrics import neighbours as module
from xfm.metrics.neighbours import Neighbours, connectivities, is_constant, neighbours


def cells(number=150, width=8, seed=0):
    return np.random.default_rng(seed).normal(size=(number, width)).astype(np.float32)


def in_float64(x, k):
    """Every distance; self first, then by distance, then by number."""
    distances = cdist(x.astype(np.float64), x.astype(np.float64))
    np.fill_diagonal(distances, -1.0)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return order, np.maximum(np.take_along_axis(distances, order, axis=1), 0.0)


@pytest.mark.parametrize("k", [1, 2, 15, 90])
def test_neighbours_are_those_of_all_distances_and_of_scikit_learn(k):
    x = cells()
    found = neighbours(x, k)
    indices, distances = in_float64(x, k)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-6)
    theirs = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(x).kneighbors(x)
    np.testing.assert_array_equal(found.indices, theirs[1])
    assert (found.indices.dtype, found.distances.dtype) == (np.int32, np.float32)


def test_a_collapsed_layer_keeps_its_neighbours():
    # All cells alike but for the sixth digit, which float32 would drop.
    x = 1e5 + cells().astype(np.float64)
    found = neighbours(x, 10)
    indices, distances = in_float64(x, 10)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-5)


def test_duplicates_are_at_distance_zero_and_never_push_a_cell_out_of_its_own_list():
    x = 1000 * np.repeat(cells(5, 64), 40, axis=0)  # 40 copies, 10 places
    found = neighbours(x, 10)
    np.testing.assert_array_equal(found.indices[:, 0], np.arange(200))
    np.testing.assert_array_equal(found.distances, np.zeros((200, 10)))
    np.testing.assert_array_equal(found.indices // 40, np.repeat(np.arange(200) // 40, 10).reshape(200, 10))
    assert all(len(set(row)) == 10 for row in found.indices.tolist())
    np.testing.assert_array_equal(np.sort(found.indices[:, 1:], axis=1), found.indices[:, 1:])


def test_near_duplicates_keep_their_distance():
    # Twins a ten-thousandth apart: their squared distance is 1e-8 of the squared norms.
    x = np.repeat(cells(40), 2, axis=0)
    x[1::2] += np.float32(1e-4) * cells(40, seed=1)
    found = neighbours(x, 5)
    indices, distances = in_float64(x, 5)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-6)
    assert (found.distances[:, 1] > 0).all()


def test_near_pairs_are_computed_anew_in_blocks_of_any_size(monkeypatch):
    x = np.repeat(cells(30), 3, axis=0)
    whole = neighbours(x, 8)
    monkeypatch.setattr(module, "PAIRS_AT_ONCE", 7)
    for ours, theirs in zip(neighbours(x, 8), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_there_are_no_more_neighbours_than_cells():
    found = neighbours(cells(4), 90)
    assert found.indices.shape == found.distances.shape == (4, 4)
    np.testing.assert_array_equal(np.sort(found.indices, axis=1), np.tile(np.arange(4), (4, 1)))
    assert neighbours(cells(1), 5).indices.tolist() == [[0]]


def test_threads_do_not_change_neighbours():
    x = cells(900, 32)
    with threadpool_limits(1):
        alone = neighbours(x, 20)
    with threadpool_limits(2):
        together = neighbours(x, 20)
    np.testing.assert_array_equal(alone.indices, together.indices)
    np.testing.assert_array_equal(alone.distances, together.distances)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(value):
    x = cells()
    x[7, 3] = value
    with pytest.raises(ValueError, match="1 of 150 cells hold NaN or infinite"):
        neighbours(x, 5)


def test_the_first_neighbours_are_the_nearest_ones():
    x = cells()
    for ours, theirs in zip(neighbours(x, 40).first(15), neighbours(x, 15), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_graph_is_the_one_of_scanpy():
    import scanpy
    from anndata import AnnData

    x = np.concatenate([cells(120), cells(80, seed=1) + 4])
    adata = AnnData(x)
    scanpy.pp.neighbors(adata, n_neighbors=15, use_rep="X")
    ours, theirs = connectivities(neighbours(x, 60)), adata.obsp["connectivities"]
    np.testing.assert_array_equal(ours.toarray() > 0, theirs.toarray() > 0)
    # Distances differ in the last digit of float32, and the bandwidth is searched to 1e-5.
    np.testing.assert_allclose(ours.toarray(), theirs.toarray(), atol=1e-4)
    assert ours.dtype == np.float32


def test_the_graph_of_three_cells_is_the_hand_computed_one():
    # Cells at 0, 1 and 3; k = 3. Nearest neighbour: weight 1. Others: exp(-(d - nearest) / s) = log2(3) - 1 = 0.585, by
    # which UMAP chooses s. Union: a + b - a b.
    found = neighbours(np.array([[0.0], [1.0], [3.0]], dtype=np.float32), 3)
    far = np.log2(3) - 1
    expected = np.array([[0, 1, far + far - far**2], [1, 0, 1], [far + far - far**2, 1, 0]])
    np.testing.assert_allclose(connectivities(found, 3).toarray(), expected, atol=1e-4)


def test_a_lone_cell_has_an_empty_graph():
    graph = connectivities(neighbours(cells(1), 15))
    assert graph.shape == (1, 1)
    assert graph.nnz == 0


def test_the_graph_of_duplicates_joins_them_fully():
    graph = connectivities(neighbours(np.repeat(cells(2), 3, axis=0), 3), 3)
    np.testing.assert_array_equal(graph.toarray(), np.kron(np.eye(2), np.ones((3, 3))) - np.eye(6))


def test_numba_keeps_the_threads_it_had():
    import numba

    most = numba.config.NUMBA_NUM_THREADS
    numba.set_num_threads(most)
    connectivities(neighbours(cells(20), 5), 5)
    assert numba.get_num_threads() == most


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_constant_means_the_same_up_to_rounding_at_any_scale(scale):
    one = scale * cells(1)
    same = np.tile(one, (30, 1))
    assert is_constant(same)
    assert is_constant(np.nextafter(same, np.float32(np.inf), where=np.eye(30, 8, dtype=bool), out=same.copy()))
    assert is_constant(np.zeros((3, 2), dtype=np.float32))
    assert not is_constant(scale * cells())
    same[3, 2] += 1e-3 * abs(one).max()
    assert not is_constant(same)


def test_a_pair_unpacks_into_indices_and_distances():
    indices, distances = Neighbours(np.zeros((1, 1), dtype=np.int32), np.zeros((1, 1), dtype=np.float32))
    assert (indices.dtype, distances.dtype) == (np.int32, np.float32)
