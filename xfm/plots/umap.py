"""Two coordinates for each cell by UMAP (McInnes, Healy, Melville 2018), through umap-learn, the same every time.

Neighbours and `min_dist` are scanpy's defaults. The layout starts from the first two principal components instead of a
spectral embedding: it then keeps more of the global arrangement (Kobak and Linderman, Nature Biotechnology 2021) and
needs no eigensolver that may fail on graphs in pieces.
"""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfm.core.errors import Refused

FEWEST = 16  # cells; with fewer there are no 15 neighbours, and nothing to look at
NEIGHBOURS, MIN_DIST, SPREAD = 15, 0.5, 1.0
F32 = NDArray[np.float32]
Matrix = NDArray[np.floating[Any]]


def umap_coordinates(x: Matrix, seed: int) -> F32:
    """UMAP on one thread, with fixed draws: the same input gives the same bytes in the same environment.

    Args:
        x: (N, D) one vector a cell, N >= 16.

    Returns:
        (N, 2).

    Raises:
        Refused: TOO_FEW_CELLS; NOT_FINITE; CONSTANT where all cells have the same vector, as at the <cls> token's
            input embedding.
    """
    cells = len(x)
    if cells < FEWEST:
        raise Refused("TOO_FEW_CELLS", f"a UMAP of {cells} cells says nothing; it needs at least {FEWEST}")
    if not np.isfinite(x).all():
        raise Refused("NOT_FINITE", f"{int((~np.isfinite(x)).any(axis=1).sum()):,} of {cells:,} cells hold NaN or inf")
    if (x == x[0]).all():
        raise Refused("CONSTANT", f"all {cells:,} cells have the same vector; there is nothing to lay out")
    from sklearn.neighbors import NearestNeighbors

    distances, indices = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute").fit(x).kneighbors(x)
    return _layout(x, indices, distances, seed)


def _layout(x: Matrix, indices: NDArray[np.integer[Any]], distances: Matrix, seed: int) -> F32:
    with warnings.catch_warnings():
        # umap-learn looks for Keras when it is imported.
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        from umap.umap_ import find_ab_params, fuzzy_simplicial_set, simplicial_set_embedding

    # A matrix product leaves a cell a little way from itself, and umap-learn measures from the nearest that is not 0.
    distances = np.where(indices == np.arange(len(x))[:, None], 0.0, distances)
    random = np.random.RandomState(seed % 2**32)
    near = {"knn_indices": indices.astype(np.int64), "knn_dists": distances.astype(np.float32)}
    graph, _, _ = fuzzy_simplicial_set(x, NEIGHBOURS, random, "euclidean", **near)
    a, b = find_ab_params(SPREAD, MIN_DIST)
    descent = {"initial_alpha": 1.0, "a": a, "b": b, "gamma": 1.0, "negative_sample_rate": 5, "n_epochs": None}
    start = {"init": _first_components(x, random), "random_state": random}
    plain = {"metric": "euclidean", "metric_kwds": {}, "densmap": False, "densmap_kwds": {}, "output_dens": False}
    layout, _ = simplicial_set_embedding(x, graph, n_components=2, parallel=False, **descent, **start, **plain)
    return np.asarray(layout, dtype=np.float32)


def _first_components(x: Matrix, random: np.random.RandomState) -> F32:
    """(N, 2) principal components, as large and as noisy as umap-learn makes its own starts.

    The noise moves duplicates apart, and gives cells on a line a second axis.
    """
    from sklearn.decomposition import PCA

    number = min(2, x.shape[1])
    scores = np.zeros((len(x), 2))
    scores[:, :number] = PCA(number, svd_solver="randomized", random_state=random).fit_transform(x)
    noise = random.normal(scale=1e-4, size=scores.shape)
    return np.asarray(10 * scores / np.abs(scores).max() + noise, dtype=np.float32)
