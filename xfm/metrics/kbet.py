"""kBET: do the neighbours of a cell hold the batches in the proportions of its label?

Buettner et al., Nature Methods 2019, per label as in scib (Luecken et al. 2022): within a label, neighbours are sought
anew by diffusion distance, and a cell accepts if a chi-squared test does not tell its neighbours from all cells of the
label. scib-metrics 0.5.10 step by step, in SciPy, with four differences that make the score reproducible:
- the search for eigenvectors starts from fixed numbers;
- neighbours are exact (pynndescent finds 0.9999 of them, after 20 s of compilation in every process);
- the steady state, whose eigenvalue is 1, weighs 1. There it weighs 16,777,215 where single precision rounds 1 down,
  and neighbours then are cells of like degree: 0.91 instead of 1.0 for one of three labels in our tests;
- a small label takes away components from no label after it.

Reference implementation: scib_metrics.kbet_per_label.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import ArpackNoConvergence, eigsh
from scipy.special import chdtrc

from xfm.core.random import rng_for
from xfm.metrics.neighbours import Neighbours, connectivities, neighbours
from xfm.metrics.resampling import F64, Ints

# Shapes: N cells, n cells of one label, C components.
NEIGHBOURS = 50  # of the graph that cells diffuse on
ALPHA = 0.05
FEWEST = 11  # cells of a label: a cell is tested on itself and at least 10 others
COMPONENTS = 100
DENSE = 400  # cells; up to here all eigenvectors cost less than the search for some
ONE = 1 - 1e-7  # scib-metrics compares single precision with 1


def kbet_acceptance(found: Neighbours, batch: Ints, labels: Ints, alpha: float = ALPHA) -> F64:
    """Whether the neighbours of a cell, of 50 or more, hold (N,) batches in due proportion within its label.

    (N,) 1 or 0; NaN for a cell that cannot be tested: its label has fewer than 11 cells or one batch, or it lies in a
    small piece of the graph. Where a quarter of a label lies in such pieces, 0 for all of it, as in scib.
    """
    graph = connectivities(found, NEIGHBOURS)
    values = np.full(len(labels), np.nan)
    for label in np.unique(labels):
        cells = np.flatnonzero(labels == label)
        values[cells] = _accept(graph[cells][:, cells], batch[cells], alpha)
    return values


def _accept(graph: csr_matrix, batch: Ints, alpha: float) -> F64:
    """Tests the cells of one label: (n,), NaN where there is no test."""
    cells = len(batch)
    _, sizes = np.unique(batch, return_counts=True)
    if cells < FEWEST or len(sizes) < 2:
        return np.full(cells, np.nan)
    others = min(70, max(10, int(sizes.mean() / 4)))
    pieces, piece = connected_components(graph, connection="strong")
    kept = np.arange(cells)
    if pieces > 1:
        kept = np.flatnonzero(np.bincount(piece)[piece] >= 3 * others)
        if len(kept) < 0.75 * cells:
            return np.zeros(cells)
    accepted = np.full(cells, np.nan)
    coordinates = _diffusion_coordinates(graph[kept][:, kept])
    if coordinates is not None:
        near = neighbours(coordinates, others + 1).indices
        accepted[kept] = _p_values(batch[kept], near) >= alpha
    return accepted


def _diffusion_coordinates(graph: csr_matrix) -> F64 | None:
    """(n, C) coordinates whose Euclidean distance is the diffusion distance over all times; None if there are none.

    Density-normalised as by Coifman et al., PNAS 2005; components weigh l / (1 - l), those with l = 1 weigh 1.
    """
    kernel = _scaled(graph.astype(np.float64), 1 / np.asarray(graph.sum(axis=0)).ravel())
    moves = _scaled(kernel, 1 / np.sqrt(np.asarray(kernel.sum(axis=0)).ravel()))
    cells = graph.shape[0]
    components = min(COMPONENTS, cells - 1)
    if cells <= DENSE:
        eigenvalues, vectors = np.linalg.eigh(moves.toarray())
        largest = np.argsort(-abs(eigenvalues), kind="stable")[:components]
        eigenvalues, vectors = eigenvalues[largest], vectors[:, largest]
    else:
        try:
            start = rng_for(0, "kbet").standard_normal(cells)
            eigenvalues, vectors = eigsh(moves, k=components, which="LM", v0=start)
        except ArpackNoConvergence:
            return None
    is_one = eigenvalues >= ONE
    weights = np.where(is_one, 1.0, eigenvalues / np.where(is_one, 1.0, 1 - eigenvalues))
    coordinates: F64 = vectors * weights
    return coordinates


def _scaled(graph: csr_matrix, factors: NDArray[np.float64]) -> csr_matrix:
    """Rows and columns times factors."""
    return diags(factors) @ graph @ diags(factors)


def _p_values(batch: Ints, near: NDArray[Any]) -> F64:
    """Chi-squared p that the batches among (n, k) neighbours have the shares that they have among all n cells."""
    _, codes, sizes = np.unique(batch, return_inverse=True, return_counts=True)
    cells, n_batches = len(codes), len(sizes)
    places = np.arange(cells)[:, None] * n_batches + codes[near]
    observed = np.bincount(places.ravel(), minlength=cells * n_batches).reshape(cells, n_batches)
    expected = sizes / cells * near.shape[1]
    p: F64 = chdtrc(n_batches - 1, (np.square(observed - expected) / expected).sum(axis=1))
    return p
