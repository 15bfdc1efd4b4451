"""What maps of attention say: how sharp their rows are, and whether they differ from cell to cell.

A mean over many maps shows neither: a mean of sharp maps that disagree looks as even as a mean of even ones, and a map
that is the same for every cell shows the parameters, not the cells. Entropy (Shannon 1948, in nats, log S at most) and
the total-variation distance say it. The mean distance of all pairs comes from sorted values: it is Gini's mean
difference of every entry, added up.
"""

# Shapes: B maps of a batch, M maps that are kept, N queries (rows), S keys (columns); a row sums to 1.

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfm.core.random import key64, mix

Weights = NDArray[np.floating[Any]]
F64 = NDArray[np.float64]

MOST_COMPARED = 1024  # maps kept for distances; those of 64 x 64 latents take 16 MB
SUM = 1e-3  # how far a row may be from 1: half precision over 64 keys


def row_entropy(weights: Weights) -> F64:
    """(..., N) entropy of every (S,) row in nats: 0 where one key has all, log S where all have the same.

    Raises:
        ValueError: a row is not a distribution.
    """
    held = distributions(weights)
    return np.asarray(-np.sum(held * np.log(np.where(held > 0, held, 1.0)), axis=-1))


def mean_variation(maps: Weights) -> float:
    """Mean total-variation distance of two different maps out of (M, N, S), exactly, over all pairs.

    Raises:
        ValueError: fewer than two maps.
    """
    count = len(maps)
    if count < 2:
        raise ValueError(f"a distance between maps needs two of them; {count} given")
    ordered = np.sort(distributions(maps), axis=0)
    # In the sum over pairs the i-th smallest is added i times and subtracted count - 1 - i times.
    signs = 2.0 * np.arange(count) - (count - 1)
    apart = np.tensordot(signs, ordered, axes=1)  # (N, S) sums over pairs
    return float(0.5 * apart.sum(axis=-1).mean() / (count * (count - 1) / 2))


def distributions(weights: Weights) -> F64:
    """The same in double precision, rows rescaled to sum to 1 exactly.

    Raises:
        ValueError: a number is negative or not finite, or a row does not sum to 1, as with dropout on.
    """
    held = np.asarray(weights, dtype=np.float64)
    if held.size == 0 or not np.isfinite(held).all() or held.min() < 0:
        raise ValueError(f"attention of shape {held.shape} must be finite and not negative, at least one weight")
    sums = held.sum(axis=-1, keepdims=True)
    if np.abs(sums - 1).max() > SUM:
        raise ValueError(
            f"rows of attention sum to {sums.min():.4g} to {sums.max():.4g}, not to 1; was dropout on, or a mask lost?"
        )
    return np.asarray(held / sums)


class MeanAttention:
    """Mean, entropy and spread of maps that come batch by batch.

    Args:
        seed: keys which maps are kept for distances where there are more than `most`.
        most: maps kept.

    Attributes:
        cells: maps added so far.
    """

    def __init__(self, seed: int = 0, most: int = MOST_COMPARED) -> None:
        if most < 2:
            raise ValueError(f"a distance between maps needs two of them; at most {most} may be kept")
        self.cells = 0
        self._key, self._most = np.uint64(key64(seed, "maps compared")), most
        self._sum: F64 | None = None
        self._entropy: F64 | None = None
        self._kept: list[tuple[int, int, NDArray[np.float32]]] = []  # draw, number of the cell, its map

    def add(self, batch: Weights) -> None:
        """Adds (B, N, S) maps; nothing happens where B is 0.

        Raises:
            ValueError: another N or S than before, or a row that is not a distribution.
        """
        if len(batch) == 0:
            return
        held = distributions(batch)
        if held.ndim != 3 or (self._sum is not None and held.shape[1:] != self._sum.shape):
            wanted = "" if self._sum is None else f" of {self._sum.shape}"
            raise ValueError(f"a batch of shape {held.shape}; give (B, N, S) maps{wanted}")
        total, entropy = held.sum(axis=0), row_entropy(held).sum(axis=0)
        self._sum = total if self._sum is None else self._sum + total
        self._entropy = entropy if self._entropy is None else self._entropy + entropy
        numbers = np.arange(self.cells, self.cells + len(held), dtype=np.uint64)
        draws = mix(numbers ^ self._key)
        maps = zip(draws.tolist(), numbers.tolist(), held, strict=True)
        fresh = [(draw, number, one.astype(np.float32)) for draw, number, one in maps]
        self._kept = sorted([*self._kept, *fresh], key=lambda kept: kept[:2])[: self._most]
        self.cells += len(held)

    @property
    def mean(self) -> F64:
        """(N, S) mean over all maps."""
        return self._some(self._sum) / self.cells

    @property
    def row_entropy(self) -> F64:
        """(N,) mean over maps of each row's entropy, in nats; not the entropy of the mean, which is higher."""
        return self._some(self._entropy) / self.cells

    @property
    def entropy(self) -> float:
        """Mean of `row_entropy`, in nats."""
        return float(self.row_entropy.mean())

    @property
    def variation(self) -> float | None:
        """Mean total-variation distance of two cells' maps, over all pairs of those kept; None for a single cell."""
        self._some(self._sum)
        if self.cells < 2:
            return None
        return mean_variation(np.stack([one for *_, one in self._kept]))

    def _some(self, total: F64 | None) -> F64:
        if total is None:
            raise ValueError("no map of attention was added yet")
        return total
