"""The compiled part of binned tokenisation: one pass over a shard's cells.

Quantiles follow `numpy.quantile(method="linear")` on float32 input, differences taken in float32 as there, so that
bin edges agree to the last bit.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xfm.core.random import mix, uniform

_mix: Any = njit(mix)
_uniform: Any = njit(uniform)

TIES = {"mid": 0, "low": 1, "high": 2, "keyed": 3}
TIE_SALT = np.uint64(0x7469655F62696E73)
SAMPLE_SALT = np.uint64(0x73616D706C655F67)


def bin_cells(
    offsets: NDArray[np.int64],
    genes: NDArray[np.int32],
    counts: NDArray[np.float32],
    token_of_gene: NDArray[np.int32],
    n_bins: int,
    ties: str,
    max_genes: int,
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Bins all known genes of each cell, then keeps at most `max_genes` of them.

    Args:
        offsets: (N + 1,) where each of N cells begins in `genes` and `counts`.
        genes: (nnz,) rows of the gene table.
        counts: (nnz,) positive values, finite.
        token_of_gene: (G,) token id of each gene, -1 where unknown: such genes are dropped before binning.
        n_bins: bins run from 1 to n_bins - 1.
        ties: one of `TIES`.
        max_genes: longer cells keep the genes with the smallest hashes of (seed, cell, gene).

    Returns:
        offsets (N + 1,), token ids and bins (kept,), genes in the order given.
    """
    quantiles = np.linspace(0.0, 1.0, n_bins - 1)
    seed_word = mix(np.array([seed], dtype=np.uint64))[0]
    # Arrow's buffers are read-only, NumPy's own are not; one type of each array means one compilation.
    counts = np.require(counts, np.float32, ["C", "W"])
    genes = np.require(genes, np.int32, ["C", "W"])
    offsets = np.require(offsets, np.int64, ["C", "W"])
    token_of_gene = np.require(token_of_gene, np.int32, ["C", "W"])
    out: tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]] = _bin_cells(
        offsets, genes, counts, counts.view(np.uint32), token_of_gene, quantiles, TIES[ties], max_genes, seed_word
    )
    return out


@njit(cache=True, nogil=True)
def _bin_cells(offsets, genes, counts, bits, token_of_gene, quantiles, ties, max_genes, seed_word):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    n = len(offsets) - 1
    out_offsets = np.zeros(n + 1, np.int64)
    tokens = np.empty(len(genes), np.int32)
    bins = np.empty(len(genes), np.int32)
    longest = np.diff(offsets).max() if n else 0
    kept = np.empty(longest, np.int64)
    words = np.empty(longest, np.uint64)
    # Positive floats order as their bits do: one compiled sort serves values and hashes.
    values = np.empty(longest, np.uint64)
    edges = np.empty(len(quantiles), np.float64)
    end = 0
    for cell in range(n):
        size = 0
        key = np.uint64(0)
        for at in range(offsets[cell], offsets[cell + 1]):
            token = token_of_gene[genes[at]]
            if token >= 0:
                kept[size] = at
                words[size] = _mix((np.uint64(token) << np.uint64(32)) | np.uint64(bits[at]))
                values[size] = bits[at]
                key += words[size]
                size += 1
        if size:
            key = _mix(key ^ seed_word)
            _edges(np.sort(values[:size]).astype(np.uint32).view(np.float32), quantiles, edges)
            threshold, at_threshold = _sample(words[:size], key, max_genes)
            for i in range(size):
                order = _mix(words[i] ^ key ^ SAMPLE_SALT)
                if order > threshold or (order == threshold and at_threshold == 0):
                    continue
                if order == threshold:
                    at_threshold -= 1
                tokens[end] = token_of_gene[genes[kept[i]]]
                value = counts[kept[i]]
                high = np.searchsorted(edges, value, side="right")
                low = np.searchsorted(edges, value, side="left")
                bins[end] = _bin(high, low, ties, words[i] ^ key)
                end += 1
        out_offsets[cell + 1] = end
    return out_offsets, tokens[:end].copy(), bins[:end].copy()


@njit(cache=True)
def _edges(ordered, quantiles, edges):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    n = len(ordered)
    for i in range(len(quantiles)):
        where = (n - 1) * quantiles[i]
        if where >= n - 1:
            edges[i] = ordered[n - 1]
            continue
        before = int(np.floor(where))
        part = where - before
        a, b = ordered[before], ordered[before + 1]
        step = np.float64(np.float32(b - a))
        edges[i] = np.float64(b) - step * (1 - part) if part >= 0.5 else np.float64(a) + step * part


@njit(cache=True)
def _bin(high, low, ties, word):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """One of low + 1 .. high; `high` where the value spans a single bin. The reference draws u uniformly."""
    if high - low <= 1 or ties == 2:
        return high
    if ties == 1:
        return low + 1
    u = 0.5 if ties == 0 else _uniform(_mix(word ^ TIE_SALT))
    return int(np.ceil(u * (low - high) + high))


@njit(cache=True)
def _sample(words, key, max_genes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The hash up to which genes are kept, and how many of those exactly at it (equal gene and count)."""
    if len(words) <= max_genes:
        return np.uint64(0xFFFFFFFFFFFFFFFF), len(words)
    order = np.sort(_mix(words ^ key ^ SAMPLE_SALT))
    threshold = order[max_genes - 1]
    return threshold, np.sum(order[:max_genes] == threshold)
