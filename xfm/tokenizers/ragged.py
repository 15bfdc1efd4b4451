"""List columns as offsets and flat values; and which positions of a row are hidden, the same in every batch."""

from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from xfm.core.random import key64, mix, uniform
from xfm.core.schema import INPUT_IDS


class RaggedIds:
    """What tokenizers have in common whose rows are ids of differing number."""

    def lengths(self, rows: pa.Table) -> NDArray[np.int64]:
        return row_lengths(rows)

    def for_training(self) -> Self:
        """Itself: ids are kept between epochs as they are."""
        return self


def ragged(column: pa.Array) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Offsets (N + 1,) from zero and flat values of a list column; a slice's own part only."""
    offsets = column.offsets.to_numpy().astype(np.int64)
    values = column.values.slice(offsets[0], offsets[-1] - offsets[0])
    return offsets - offsets[0], values.to_numpy(zero_copy_only=False)


def padded(rows: pa.RecordBatch | pa.Table, name: str, fill: np.generic) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """(N, T) values of a list column, padded with `fill` in its type, and (N, T) which of them are values."""
    column = rows.column(name)
    offsets, flat = ragged(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)
    lengths = np.diff(offsets)
    is_value = np.arange(lengths.max()) < lengths[:, None]
    values = np.full(is_value.shape, fill)
    values[is_value] = flat
    return values, is_value


def row_sums(offsets: NDArray[np.int64], values: NDArray[Any]) -> NDArray[np.float32]:
    """(N,) sums of ragged rows; 0 for an empty row."""
    running = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return np.asarray(running[offsets[1:]] - running[offsets[:-1]], np.float32)


def row_lengths(rows: pa.Table) -> NDArray[np.int64]:
    """(N,) ids of each tokenised row."""
    return np.array(pc.list_value_length(rows[INPUT_IDS]).to_numpy(), np.int64)  # a copy that may be written to


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
