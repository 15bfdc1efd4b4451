"""Does a representation order cells as real time does? Pseudotime from a root cell, and its agreement with known times.

Diffusion pseudotime says how far a random walk on the neighbour graph thinks each cell is from the root: Haghverdi et
al., Nature Methods 2016, on the graph of scanpy (Wolf et al., Genome Biology 2018) and with its defaults.

A component with eigenvalue l weighs l / (1 - l). scanpy computes in single precision and therefore gives a component
with l of 0.9994 or more the weight 1. Its numbers are what the field compares, so that rule is kept; but slow
components are the long way through the data. On 2,000 cells along a thin curve scanpy's Spearman correlation with the
truth is -0.01, and 0.997 with all weights; on krumsiek11 it is 0.955, and 0.826 with all weights, which set its
branches far apart. Hence both, and a count of the components concerned.

Depth is the usual confounder of pseudotime (larger cells look later, or earlier), hence the partial correlation given
each cell's counts.

Reference implementations: scanpy.tl.dpt; scipy.stats.spearmanr and kendalltau (tau-b).
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import ArpackError, eigsh
from scipy.stats import kendalltau, rankdata

from xfm.core.errors import Refused
from xfm.core.random import rng_for
from xfm.metrics.neighbours import IN_GRAPH, Neighbours, connectivities, is_constant, neighbours
from xfm.metrics.resampling import F64, GroupDraws, Ints, Resampled, bootstrap, group_sums, ratios, weighted_sums

# Shapes: N cells, D width of the representation, G groups, B resamples, b resamples of one block, T time points.
ENOUGH = IN_GRAPH + 1  # cells; fewer are all neighbours of each other
COMPONENTS = 10  # n_dcs of scanpy.tl.dpt, the steady state among them
SLOW = 0.9994  # scanpy: "account for float32 precision"
ROUNDING = 1e-12  # of a share of variance


class Pseudotime(NamedTuple):
    """Distance from the root cell along the data."""

    # (N,) 0 at the root, 1 at the furthest cell, inf where no path leads; all NaN where there is no pseudotime
    values: F64
    reason: str = ""  # why there is none; empty where there is one
    slow: int = 0  # diffusion components that scanpy's rule does not weigh; where there are any, `exact` is another one


def pseudotime(
    representation: NDArray[np.floating[Any]], root: int, *, found: Neighbours | None = None, exact: bool = False
) -> Pseudotime:
    """Diffusion pseudotime of cells, or NaN and a reason where the representation has none to give.

    Only cells that a path joins to the root enter the diffusion map. In one piece that is what scanpy does; in several
    pieces scanpy spends one component on each and has few left to tell cells apart.

    Args:
        representation: (N, D).
        root: number of the cell where time starts.
        found: `neighbours` of the same cells in the same representation, 15 or more; searched here where not given.
        exact: the paper's weights of slow components instead of scanpy's.
    """
    if not 0 <= root < len(representation):
        raise ValueError(f"root cell {root} asked for, {len(representation)} cells count from 0")
    if reason := _degenerate(representation):
        return _none(len(representation), reason)
    graph = connectivities(found or neighbours(representation, IN_GRAPH))
    _, pieces = connected_components(graph, directed=False)
    is_reached = pieces == pieces[root]
    reached = int(is_reached.sum())
    if reached < ENOUGH:
        return _none(len(is_reached), f"only {reached} cells hang together with the root, {ENOUGH} are needed")
    try:
        values, vectors = diffusion_components(csr_array(graph[is_reached][:, is_reached].astype(np.float64)))
    except ArpackError as error:
        return _none(len(is_reached), f"the diffusion map has no solution: {error}")
    distances = diffusion_distances(values, vectors, int(is_reached[:root].sum()), exact=exact)
    from_root = np.full(len(is_reached), np.inf)
    from_root[is_reached] = distances / distances.max()
    return Pseudotime(from_root, slow=int((values[1:] >= SLOW).sum()))


def diffusion_components(graph: Any) -> tuple[F64, F64]:
    """Eigenvalues (10,), falling from 1, and eigenvectors (N, 10) of the random walk on a connected graph.

    The walk is made symmetric and corrected for the density of cells (Coifman and Lafon 2006), as scanpy's. The graph
    is (N, N) sparse symmetric float64 weights, N > 10, in one piece.

    Raises:
        scipy.sparse.linalg.ArpackError: if they are not found.
    """
    without_density = diags_array(1 / graph.sum(axis=0))
    kernel = without_density @ graph @ without_density
    steps = kernel.sum(axis=0)
    symmetric = diags_array(steps**-0.5)
    start = rng_for(0, "diffusion map").standard_normal(len(steps))
    values, vectors = eigsh(symmetric @ kernel @ symmetric, k=COMPONENTS, which="LA", v0=start)
    return values[::-1], vectors[:, ::-1]


def diffusion_distances(values: F64, vectors: F64, root: int, *, exact: bool) -> F64:
    """(N,) diffusion pseudotime from the root, unscaled: Haghverdi et al. 2016, supplement, equation 15.

    Takes what `diffusion_components` gives. Where `exact` every component but the steady state weighs l / (1 - l);
    otherwise slow ones weigh 1, as in scanpy.
    """
    left = np.maximum(1 - values, np.finfo(np.float64).eps)
    weights = values / left if exact else np.where(values < SLOW, values / left, 1.0)
    if exact:
        weights[0] = 0.0
    out: F64 = np.linalg.norm((vectors - vectors[root]) * weights, axis=1)
    return out


def root_cell(
    representation: NDArray[np.floating[Any]], *, times: F64 | None = None, is_root: NDArray[np.bool_] | None = None
) -> int:
    """The medoid of the earliest cells: the cell with the least summed squared distance to all of them.

    Under squared Euclidean distance that is the cell nearest to their mean, so no pair needs to be looked at. The first
    one among equals.

    Args:
        representation: (N, D).
        times: (N,) known times, NaN where unknown; cells of the earliest one are meant.
        is_root: (N,) whether a cell is of the declared root; outranks times.

    Raises:
        Refused: NO_ROOT if there is no such cell.
    """
    if is_root is None:
        if times is None:
            raise ValueError("neither times nor root cells are given, so nothing tells where time starts")
        is_root = np.isfinite(times)
        is_root = is_root & (times == times.min(where=is_root, initial=np.inf))
    candidates = np.flatnonzero(is_root)
    if len(candidates) == 0:
        raise Refused("NO_ROOT", f"no cell to start time from: none of {len(representation)} has a time or is a root")
    chosen = representation[candidates].astype(np.float64)
    chosen -= chosen.mean(axis=0)
    return int(candidates[np.einsum("nd,nd->n", chosen, chosen).argmin()])


def trajectory_scores(pseudotime: F64, times: F64, log_depth: F64 | None, draws: GroupDraws) -> dict[str, Resampled]:
    """Agreement of pseudotime with known times.

    `spearman` over cells, `partial_spearman` given depth, `kendall` (tau-b) between distinct times and the medians of
    pseudotime at them, `unreachable`, the share of cells with infinite pseudotime. The first three are taken over the
    reachable cells whose time is known. Cells are ranked once: a resample weighs these ranks, and Spearman's
    correlation is Pearson's of weighted ranks. Ranking anew would move a draw by terms of order 1 / N.
    Medians of few cells are noisier when drawn twice, from the population and from the cells: draws of `kendall` then
    lie below its value, and so does their interval. Differences of two representations share that shift.

    Args:
        pseudotime: (N,) inf where unreachable; with NaN every score is NaN.
        times: (N,) known times, NaN where unknown.
        log_depth: (N,) log counts of each cell; without them no `partial_spearman` is returned.
        draws: the resamples, over the same N cells.
    """
    if not len(pseudotime) == len(times) == len(draws.codes):
        raise ValueError(f"{len(pseudotime)} pseudotimes, {len(times)} times and {len(draws.codes)} groups of cells")
    if log_depth is not None and not (len(log_depth) == len(times) and np.isfinite(log_depth).all()):
        raise ValueError(f"one finite log depth needed for each of {len(times)} cells")
    names = ["spearman", *(["partial_spearman"] if log_depth is not None else []), "kendall", "unreachable"]
    if np.isnan(pseudotime).any():
        return {name: Resampled(float("nan"), np.full(draws.resamples, np.nan)) for name in names}
    is_used = np.isfinite(pseudotime) & np.isfinite(times)
    ranked = [pseudotime, times] if log_depth is None else [pseudotime, times, log_depth]
    correlations = _RankCorrelations([column[is_used] for column in ranked], draws.codes[is_used], draws.n_groups)
    medians = _Medians(pseudotime[is_used], times[is_used], draws.codes[is_used])
    lost = np.stack([np.isinf(pseudotime), np.ones(len(times))], axis=1)
    lost_sums = group_sums(draws.codes, draws.n_groups, lost)

    def statistic(weights: NDArray[Any]) -> dict[str, F64]:
        infinite, cells = weighted_sums(weights, lost_sums).T
        found = correlations.of(weights) | {"kendall": medians.kendall(weights), "unreachable": ratios(infinite, cells)}
        return {name: found[name] for name in names}

    return bootstrap(draws, statistic)


class _RankCorrelations:
    """Spearman of columns 0 and 1, and given column 2 where there is one, in weighted groups."""

    def __init__(self, columns: list[F64], codes: Ints, n_groups: int) -> None:
        # Twice the rank, centred: integers, whose products sum without rounding for 100,000 cells.
        ranks = [2 * rankdata(column) - len(column) - 1 for column in columns]
        self.pairs = [(i, j) for i in range(len(ranks)) for j in range(i, len(ranks))]
        products = [ranks[i] * ranks[j] for i, j in self.pairs]
        self.sums = group_sums(codes, n_groups, np.stack([np.ones(len(codes)), *ranks, *products], axis=1))
        self.columns = len(ranks)

    def of(self, weights: NDArray[Any]) -> dict[str, F64]:
        """(b, G) weights to (b,) correlations; NaN where a column is constant."""
        cells, *rest = weighted_sums(weights, self.sums).T
        means = rest[: self.columns]
        products = dict(zip(self.pairs, rest[self.columns :], strict=True))
        covariance = {(i, j): cells * products[i, j] - means[i] * means[j] for i, j in self.pairs}

        def correlation(i: int, j: int) -> F64:
            spreads = np.sqrt(covariance[i, i]) * np.sqrt(covariance[j, j])
            return np.clip(ratios(covariance[i, j], spreads), -1.0, 1.0)

        r01 = correlation(0, 1)
        if self.columns == 2:
            return {"spearman": r01}
        r02, r12 = correlation(0, 2), correlation(1, 2)
        left = (1 - r02**2) * (1 - r12**2)
        left = np.where(left > ROUNDING, left, 0.0)  # depth ranks cells as one of the two does: nothing is left over
        return {"spearman": r01, "partial_spearman": np.clip(ratios(r01 - r02 * r12, np.sqrt(left)), -1.0, 1.0)}


class _Medians:
    """Medians of pseudotime at each distinct time, in weighted groups."""

    def __init__(self, pseudotime: F64, times: F64, codes: Ints) -> None:
        order = np.lexsort((pseudotime, times))
        self.values, self.codes = pseudotime[order], codes[order]
        self.times, self.starts = np.unique(times[order], return_index=True)
        self.ends = np.append(self.starts[1:], len(order))

    def kendall(self, weights: NDArray[Any]) -> F64:
        """(b, G) weights to (b,) tau-b of times and medians; a time that is not drawn is left out."""
        out = np.full(len(weights), np.nan)
        for number, medians in enumerate(self.of(weights)):
            is_drawn = np.isfinite(medians)
            if is_drawn.sum() > 1:
                out[number] = kendalltau(self.times[is_drawn], medians[is_drawn]).statistic
        return out

    def of(self, weights: NDArray[Any]) -> F64:
        """(b, G) weights to (b, T) medians, each cell counted as often as its group is drawn; NaN for no cell."""
        out = np.full((len(weights), len(self.times)), np.nan)
        if len(self.codes) == 0:
            return out
        # drawn[:, i] is how many of the drawn cells stand before place i in the order of (time, pseudotime).
        drawn = np.zeros((len(weights), len(self.codes) + 1), dtype=np.int64)
        np.cumsum(weights[:, self.codes], axis=1, out=drawn[:, 1:])
        before, cells = drawn[:, self.starts], drawn[:, self.ends] - drawn[:, self.starts]
        middle = np.hstack([before + (cells + 1) // 2, before + cells // 2 + 1])  # both middle cells, counted from 1
        for row, places, medians, found in zip(drawn, middle, out, cells > 0, strict=True):
            at = np.searchsorted(row[1:], places[np.tile(found, 2)])
            medians[found] = self.values[at].reshape(2, -1).mean(axis=0)
        return out


def _degenerate(representation: NDArray[np.floating[Any]]) -> str:
    """Why a representation cannot order cells, or nothing."""
    if not np.abs(representation).max(initial=0.0) < np.finfo(np.float32).max ** 0.5:
        return "the representation has values that are not finite, or whose squares are not in single precision"
    if is_constant(representation):
        return "the representation is the same for all cells"
    distinct: set[bytes] = set()
    for cell in representation:
        distinct.add(cell.tobytes())
        if len(distinct) == ENOUGH:
            return ""
    return f"the representation holds {len(distinct)} distinct cells, {ENOUGH} are needed"


def _none(cells: int, reason: str) -> Pseudotime:
    return Pseudotime(np.full(cells, np.nan), reason)
