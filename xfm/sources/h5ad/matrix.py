"""Rows out of one expression matrix of an .h5ad file, in bounded memory: CSR, CSC or dense, any real number type.

h5py alone is used: AnnData's backed mode keeps only X on disk and loads layers, raw and obs as a whole.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from xfm.core.errors import ShardRefused
from xfm.sources.cells import NEARLY, CheckedRows, is_whole

BATCH_ROWS = 1024
DENSE_ENTRIES = 2**24  # a dense slice is cut shorter than BATCH_ROWS where genes are many
CSC_ENTRIES = 2**22  # entries of a column-wise matrix looked at together
SAMPLE_BLOCKS, SAMPLE_ROWS, SAMPLE_ENTRIES = 8, 32, 2**18


class Matrix(ABC):
    """An open matrix of `shape` (cells, genes). `label` names it in messages."""

    def __init__(self, shape: tuple[int, int], label: str) -> None:
        self.n_rows, self.n_columns = shape
        self.label = label

    @abstractmethod
    def batches(self, start: int, stop: int) -> Iterator[CheckedRows]:
        """Rows start to stop, at most BATCH_ROWS at once."""

    @abstractmethod
    def _samples(self) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """A few blocks from all over the matrix: rows and values of non-zero entries."""

    def sample(self) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """(S,) rows and (S,) values of all sampled entries."""
        rows, values = zip(*self._samples(), strict=True)
        return np.concatenate(rows), np.concatenate(values)

    @abstractmethod
    def check(self) -> None:
        """Look at every index before a row is used.

        Raises:
            ShardRefused: BAD_INDICES.
        """

    def looks_like_counts(self) -> bool:
        """Whether at least half of the sampled rows without a bad value hold whole numbers only."""
        rows, values = self.sample()
        if len(values) == 0:
            return True
        with np.errstate(invalid="ignore"):
            valid = np.isfinite(values) & (values >= 0)
        whole = is_whole(values)
        _, row = np.unique(rows, return_inverse=True)
        row_valid = np.bincount(row, ~valid) == 0
        row_whole = row_valid & (np.bincount(row, valid & ~whole) == 0)
        return bool(row_whole.sum() >= max(1, row_valid.sum() / 2))

    def is_empty(self) -> bool:
        """Whether the sample holds no value but zero."""
        return len(self.sample()[1]) == 0

    def off_whole(self) -> float:
        """How far sampled counts are from whole numbers at most, of those that pass for whole."""
        _, values = self.sample()
        with np.errstate(invalid="ignore"):
            off = np.abs(values - np.rint(values))
        return float(off[off <= NEARLY].max(initial=0.0))

    def example(self) -> str:
        """A value that is no count, for a message; empty where the sample holds none."""
        _, values = self.sample()
        with np.errstate(invalid="ignore"):
            odd = values[~(np.isfinite(values) & (values >= 0) & is_whole(values))]
        return str(odd[0]) if len(odd) else ""


class Dense(Matrix):
    """An HDF5 data set of shape (cells, genes)."""

    def __init__(self, data: Any, label: str) -> None:
        super().__init__(data.shape, label)
        self._data = data

    def check(self) -> None:
        """A dense matrix has no indices."""

    def batches(self, start: int, stop: int) -> Iterator[CheckedRows]:
        step = max(1, min(BATCH_ROWS, DENSE_ENTRIES // max(1, self.n_columns)))
        for low in range(start, stop, step):
            block = native(self._data[low : min(low + step, stop)])
            stored = np.flatnonzero(block)
            in_row = np.count_nonzero(block, axis=1)
            column = stored - np.repeat(np.arange(len(block)) * self.n_columns, in_row)
            indptr = np.concatenate([[0], np.cumsum(in_row)])
            yield CheckedRows(indptr, column.astype(np.int32), block.reshape(-1)[stored])

    def _samples(self) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        for low, high in _blocks(self.n_rows):
            block = native(self._data[low:high])
            row, column = np.nonzero(block)
            yield row + low, block[row, column]


class Sparse(Matrix):
    """What CSR and CSC share: `indptr` along the major axis, `indices` along the other.

    Raises:
        ShardRefused: BAD_INDICES, when the three arrays contradict each other.
    """

    major: ClassVar[int]  # the axis of `indptr`

    def __init__(self, group: Any, shape: tuple[int, int], label: str) -> None:
        super().__init__(shape, label)
        n_major, self._n_minor = shape[self.major], shape[1 - self.major]
        self._data, self._indices = group["data"], group["indices"]
        self._indptr: NDArray[np.int64] = group["indptr"][:].astype(np.int64)
        n_stored = len(self._data)
        if len(self._indices) != n_stored:
            self._refuse(f"{len(self._indices)} indices for {n_stored} values")
        if len(self._indptr) != n_major + 1 or self._indptr[0] != 0 or self._indptr[-1] != n_stored:
            self._refuse(f"indptr does not lead from 0 to {n_stored} in {n_major} steps")
        if (np.diff(self._indptr) < 0).any():
            self._refuse("indptr runs backwards")

    def _refuse(self, why: str) -> None:
        raise ShardRefused("BAD_INDICES", f"{self.label}: {why}")

    def _read_indices(self, low: int, high: int) -> NDArray[Any]:
        """Stored indices low to high, checked against the length of their axis."""
        indices: NDArray[Any] = self._indices[low:high]
        if len(indices) and (indices.min() < 0 or indices.max() >= self._n_minor):
            self._refuse(f"indices run from {indices.min()} to {indices.max()}; the axis has {self._n_minor}")
        return indices

    def check(self) -> None:
        """Pass over all indices."""
        for low in range(0, len(self._indices), CSC_ENTRIES):
            self._read_indices(low, low + CSC_ENTRIES)

    def _samples(self) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        for first, last in _blocks(len(self._indptr) - 1):
            low = int(self._indptr[first])
            high = min(int(self._indptr[last]), low + SAMPLE_ENTRIES)
            block = native(self._data[low:high])
            stored = np.flatnonzero(block)
            yield self._rows_of(low, high)[stored], block[stored]

    @abstractmethod
    def _rows_of(self, low: int, high: int) -> NDArray[np.int64]:
        """Rows of stored entries low to high."""


class CSR(Sparse):
    """Compressed sparse rows: a batch is one contiguous piece of the file."""

    major = 0

    def _rows_of(self, low: int, high: int) -> NDArray[np.int64]:
        return np.searchsorted(self._indptr, np.arange(low, high), side="right") - 1

    def batches(self, start: int, stop: int) -> Iterator[CheckedRows]:
        for first in range(start, stop, BATCH_ROWS):
            indptr = self._indptr[first : min(first + BATCH_ROWS, stop) + 1]
            low, high = int(indptr[0]), int(indptr[-1])
            yield CheckedRows(indptr - low, self._read_indices(low, high), native(self._data[low:high]))


class CSC(Sparse):
    """Compressed sparse columns: the whole file is passed through once a shard, keeping the shard's rows only."""

    major = 1

    def _rows_of(self, low: int, high: int) -> NDArray[np.int64]:
        return self._read_indices(low, high).astype(np.int64)

    def batches(self, start: int, stop: int) -> Iterator[CheckedRows]:
        """One pass over the file, turned to rows, then pieces of that. Memory grows with stop - start."""
        from scipy.sparse import csc_matrix

        n_rows = stop - start
        rows, values = [np.zeros(0, np.int32)], [native(self._data[:0])]
        kept_before = np.zeros(len(self._indptr), np.int64)  # entries of the shard before each column
        for low in range(0, len(self._data), CSC_ENTRIES):
            high = min(low + CSC_ENTRIES, len(self._data))
            row = self._read_indices(low, high).astype(np.int64) - start
            inside = np.flatnonzero((row >= 0) & (row < n_rows))
            kept_before += np.searchsorted(inside, self._indptr - low)
            if len(inside):
                rows.append(row[inside].astype(np.int32))
                values.append(native(self._data[low:high])[inside])
        columns = (np.concatenate(values), np.concatenate(rows), kept_before)
        by_row = csc_matrix(columns, shape=(n_rows, self.n_columns)).tocsr()
        for first in range(0, n_rows, BATCH_ROWS):
            piece = by_row.indptr[first : first + BATCH_ROWS + 1].astype(np.int64)
            low, high = int(piece[0]), int(piece[-1])
            yield CheckedRows(piece - low, by_row.indices[low:high], by_row.data[low:high])


def native(values: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in a type NumPy computes with quickly: byte order of the machine, no float16, no bool."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype == np.float16:
        return values.astype(np.float32)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _blocks(length: int) -> list[tuple[int, int]]:
    """Up to SAMPLE_BLOCKS ranges spread evenly over an axis."""
    starts = np.linspace(0, max(0, length - SAMPLE_ROWS), SAMPLE_BLOCKS).astype(int)
    return [(low, min(low + SAMPLE_ROWS, length)) for low in sorted(set(starts.tolist()))]
