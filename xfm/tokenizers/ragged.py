"""List columns as offsets and flat values."""

from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

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
    sums: NDArray[np.float32] = (running[offsets[1:]] - running[offsets[:-1]]).astype(np.float32)
    return sums


def row_lengths(rows: pa.Table) -> NDArray[np.int64]:
    """(N,) ids of each tokenised row."""
    lengths: NDArray[np.int64] = pc.list_value_length(rows[INPUT_IDS]).to_numpy().astype(np.int64)
    return lengths
