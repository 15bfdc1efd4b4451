"""Which positions of a row are hidden: a keyed choice, the same in every batch and on every machine."""

import numpy as np
from numpy.typing import NDArray

from xfm.core.random import key64, mix, uniform


def position_uniforms(
    offsets: NDArray[np.int64], ids: NDArray[np.int64], values: NDArray[np.int64], seed: int, purpose: str
) -> NDArray[np.float64]:
    """A number in [0, 1) for every position, a function of seed, purpose and the row's own (id, value) pairs.

    Args:
        offsets: (N + 1,) where rows begin; no row is empty.
        ids, values: (tokens,) integers.
        purpose: keeps draws for different ends independent, e.g. "mask" or "mask epoch 3".

    Returns:
        (tokens,) uniforms. The order of a row's tokens does not matter to any of them.
    """
    words = mix((ids.astype(np.uint64) << np.uint64(32)) ^ values.astype(np.int64).view(np.uint64))
    rows = mix(np.add.reduceat(words, offsets[:-1]) ^ np.uint64(key64(seed, purpose)))
    return uniform(mix(words ^ np.repeat(rows, np.diff(offsets))))


def choose_fraction(
    offsets: NDArray[np.int64],
    uniforms: NDArray[np.float64],
    eligible: NDArray[np.bool_],
    fraction: float | NDArray[np.float64],
) -> NDArray[np.bool_]:
    """(tokens,) the given share of each row's eligible positions, at least one and never all of two or more.

    Args:
        offsets: (N + 1,).
        uniforms: (tokens,); the smallest of a row are chosen.
        eligible: (tokens,) bool.
        fraction: of the eligible positions, one number or one a row (N,).
    """
    row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((np.where(eligible, uniforms, 2.0), row))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - offsets[row]
    count = np.add.reduceat(eligible.astype(np.int64), offsets[:-1])
    wanted = np.clip(np.floor(count * fraction), 1, np.maximum(count - 1, 1)).astype(np.int64)
    return np.asarray((rank < wanted[row]) & eligible)
