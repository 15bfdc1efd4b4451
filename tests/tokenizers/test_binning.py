"""Bins against NumPy's own quantile and digitize, and against what the official package fed to its model."""

import itertools

import numpy as np
import pytest

from xfm.core.random import mix, uniform
from xfm.tokenizers.binning import _mix, _uniform, bin_cells


def reference_bins(values, u, n_bins=51):
    """The published rule, written with NumPy's functions: u = 0 gives the highest bin of a tie."""
    edges = np.quantile(values, np.linspace(0, 1, n_bins - 1))
    low = np.digitize(values, edges, right=True)
    high = np.digitize(values, edges)
    return np.where(high > low, np.ceil(u * (low - high) + high), high).astype(int)


def cells(seed, n, longest, kind):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest, n)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    size = offsets[-1]
    counts = rng.negative_binomial(1, 0.4, size) + 1 if kind == "counts" else rng.lognormal(0, 2, size)
    genes = np.concatenate([rng.permutation(longest)[:length] for length in lengths])
    return offsets, genes.astype(np.int32), counts.astype(np.float32)


@pytest.mark.parametrize("kind", ["counts", "real"])
@pytest.mark.parametrize("n_bins", [3, 51, 101])
@pytest.mark.parametrize(("ties", "u"), [("high", 0.0), ("mid", 0.5), ("low", 1 - 1e-12)])
def test_bins_equal_numpy_quantile_and_digitize(kind, n_bins, ties, u):
    offsets, genes, counts = cells(7, 40, 300, kind)
    tokens = np.arange(300, dtype=np.int32)
    _, ids, bins = bin_cells(offsets, genes, counts, tokens, n_bins, ties, 10_000, 0)
    np.testing.assert_array_equal(ids, genes)
    for start, stop in itertools.pairwise(offsets):
        np.testing.assert_array_equal(bins[start:stop], reference_bins(counts[start:stop], u, n_bins))


def test_keyed_ties_are_uniform_over_the_bins_a_value_spans():
    counts = np.ones(20_000, np.float32)
    counts[:4_000] = 2
    genes = np.arange(20_000, dtype=np.int32)
    _, _, bins = bin_cells(np.array([0, 20_000]), genes, counts, genes, 51, "keyed", 30_000, 3)
    drawn = np.bincount(bins[4_000:])
    low = reference_bins(counts, 1 - 1e-12)[-1]
    high = reference_bins(counts, 0.0)[-1]
    assert drawn[:low].sum() == 0
    expected = 16_000 / (high - low + 1)
    # Six standard deviations of a binomial count.
    assert np.abs(drawn[low : high + 1] - expected).max() < 6 * np.sqrt(expected)


def test_sampling_keeps_each_gene_equally_often_and_never_too_many():
    n, size, keep = 600, 60, 20
    rng = np.random.default_rng(0)
    genes = np.tile(np.arange(size, dtype=np.int32), n)
    counts = rng.integers(1, 50, n * size).astype(np.float32)
    offsets = np.arange(n + 1) * size
    out, ids, _ = bin_cells(offsets, genes, counts, np.arange(size, dtype=np.int32), 51, "mid", keep, 1)
    assert (np.diff(out) == keep).all()
    assert np.abs(np.bincount(ids, minlength=size) - n * keep / size).max() < 6 * np.sqrt(n * keep / size)


@pytest.mark.parametrize("ties", ["mid", "keyed", "low", "high"])
def test_a_cell_is_the_same_alone_among_others_and_with_its_genes_reordered(ties):
    offsets, genes, counts = cells(1, 30, 200, "counts")
    tokens = np.arange(200, dtype=np.int32)
    out, ids, bins = bin_cells(offsets, genes, counts, tokens, 51, ties, 50, 5)
    for i in range(30):
        part = slice(offsets[i], offsets[i + 1])
        shuffled = np.random.default_rng(i).permutation(offsets[i + 1] - offsets[i])
        alone = bin_cells(
            np.array([0, len(shuffled)]), genes[part][shuffled], counts[part][shuffled], tokens, 51, ties, 50, 5
        )
        expected = dict(zip(ids[out[i] : out[i + 1]], bins[out[i] : out[i + 1]], strict=True))
        assert dict(zip(alone[1], alone[2], strict=True)) == expected


def test_another_seed_draws_other_bins_and_other_genes():
    offsets, genes, counts = cells(1, 30, 200, "counts")
    tokens = np.arange(200, dtype=np.int32)
    a = bin_cells(offsets, genes, counts, tokens, 51, "keyed", 50, 5)
    b = bin_cells(offsets, genes, counts, tokens, 51, "keyed", 50, 6)
    assert not np.array_equal(a[1], b[1])
    assert not np.array_equal(a[2], b[2])


def test_unknown_genes_are_dropped_before_binning():
    genes = np.arange(6, dtype=np.int32)
    counts = np.array([1, 100, 2, 200, 3, 300], np.float32)
    token_of_gene = np.array([10, -1, 11, -1, 12, -1], np.int32)
    out, ids, bins = bin_cells(np.array([0, 6, 6]), genes, counts, token_of_gene, 51, "high", 99, 0)
    assert out.tolist() == [0, 3, 3]
    assert ids.tolist() == [10, 11, 12]
    np.testing.assert_array_equal(bins, reference_bins(np.array([1, 2, 3], np.float32), 0.0))


def test_compiled_hashes_equal_the_vectorised_ones():
    words = np.random.default_rng(0).integers(0, 2**64, 100, dtype=np.uint64)
    from numba import njit

    scalar_mix = njit(lambda w: _mix(w))
    scalar_uniform = njit(lambda w: _uniform(w))
    np.testing.assert_array_equal([scalar_mix(w) for w in words], mix(words))
    np.testing.assert_array_equal([scalar_uniform(w) for w in words], uniform(words))


def test_mix_is_the_published_splitmix64():
    # First outputs of SplitMix64 seeded with 1234567, from the reference C program's published test vector.
    state = np.array([1234567], dtype=np.uint64)
    outputs = []
    for _ in range(3):
        outputs.append(int(mix(state)[0]))
        state = state + np.uint64(0x9E3779B97F4A7C15)
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]
