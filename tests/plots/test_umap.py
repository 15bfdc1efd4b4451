import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from xfm.core.errors import Refused
from xfm.plots.umap import umap_coordinates


@pytest.fixture(scope="module")
def cells():
    """120 cells of four types, far apart."""
    rng = np.random.default_rng(3)
    kinds = np.arange(120) % 4
    return (8 * rng.normal(size=(4, 12))[kinds] + rng.normal(size=(120, 12))).astype(np.float32), kinds


@pytest.fixture(scope="module")
def layout(cells):
    return umap_coordinates(cells[0], seed=5)


def test_cells_of_a_type_stay_together_and_the_layout_is_the_same_each_time(cells, layout):
    x, kinds = cells
    assert layout.shape == (120, 2)
    assert layout.dtype == np.float32
    nearest = NearestNeighbors(n_neighbors=6).fit(layout).kneighbors(return_distance=False)
    assert (kinds[nearest] == kinds[:, None]).all()
    assert umap_coordinates(x, seed=5).tobytes() == layout.tobytes()
    assert umap_coordinates(x, seed=6).tobytes() != layout.tobytes()


def test_the_graph_is_that_of_exact_distances(layout, monkeypatch):
    """SciPy's, coordinate by coordinate. umap-learn's own `UMAP` class makes the same graph of these cells."""
    import umap.umap_

    # So wide and so far from the origin that a matrix product leaves some cells a little way from themselves.
    x = np.random.default_rng(3).normal(size=(300, 64)).astype(np.float32) + 10
    seen = []
    make = umap.umap_.fuzzy_simplicial_set
    monkeypatch.setattr(umap.umap_, "fuzzy_simplicial_set", lambda *a, **k: seen.append(make(*a, **k)) or seen[-1])
    umap_coordinates(x, seed=5)
    apart = cdist(x, x)
    nearest = np.argsort(apart, axis=1)[:, :15]
    exact = np.take_along_axis(apart, nearest, axis=1).astype(np.float32)
    theirs, *_ = make(x, 15, None, "euclidean", knn_indices=nearest, knn_dists=exact)
    # Squared lengths of 6,400 in single precision leave the distances, of about 9, three decimals.
    assert abs(seen[0][0] - theirs).max() < 0.01


def test_duplicates_and_cells_on_a_line_are_laid_out(cells):
    few = np.repeat(cells[0][:4], 10, axis=0)
    line = np.arange(20, dtype=np.float32)[:, None]
    for x in (few, line):
        assert np.isfinite(umap_coordinates(x, seed=0)).all()


@pytest.mark.parametrize(
    ("x", "code"),
    [
        (np.eye(15), "TOO_FEW_CELLS"),
        (np.ones((50, 4)), "CONSTANT"),
        (np.where(np.eye(50, 4), np.nan, 1.0), "NOT_FINITE"),
    ],
)
def test_what_has_no_layout_is_refused_with_a_reason(x, code):
    with pytest.raises(Refused) as caught:
        umap_coordinates(x, seed=0)
    assert caught.value.code == code
