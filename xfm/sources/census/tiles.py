"""Shards of Census: runs of whole storage tiles, packed until they hold enough cells or enough entries.

X is stored in tiles of 2,048 cells; a shard that cuts a tile makes both of its neighbours read it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xfm.core.random import mix

TILE = 2048
ENTRIES_PER_ROW = 4000  # a shard of full-depth cells is cut shorter than one of shallow cells


class Run(NamedTuple):
    """Consecutive tiles: joinids start to stop (half-open), and the selected cells among them."""

    start: int
    stop: int
    rows: int


class Tally:
    """Counts selected cells and their non-zero entries tile by tile, from batches of joinids in any order.

    Attributes:
        rows: cells seen.
    """

    def __init__(self, shard_rows: int) -> None:
        self._shard_rows = shard_rows
        self._tile = min(TILE, shard_rows)
        self._rows_of: NDArray[np.int64] = np.zeros(0, np.int64)
        self._entries_of: NDArray[np.int64] = np.zeros(0, np.int64)
        self._sums = [0, 0]
        self.rows = 0

    def add(self, joinids: NDArray[np.int64], nnz: NDArray[np.int64] | None) -> None:
        """Count one batch; `nnz` may be unknown."""
        if len(joinids) == 0:
            return
        tiles = joinids // self._tile
        length = max(len(self._rows_of), int(tiles.max()) + 1)
        entries = np.zeros(len(joinids), np.int64) if nnz is None else nnz.astype(np.int64)
        for name, weights in (("_rows_of", None), ("_entries_of", entries)):
            total = np.bincount(tiles, weights, minlength=length).astype(np.int64)
            total[: len(getattr(self, name))] += getattr(self, name)
            setattr(self, name, total)
        self.rows += len(joinids)
        words = mix(mix(joinids.astype(np.uint64)) + entries.astype(np.uint64))
        for i, salt in enumerate((0, 0x5851F42D4C957F2D)):
            self._sums[i] = (self._sums[i] + int(mix(words ^ np.uint64(salt)).sum(dtype=np.uint64))) % 2**64

    def digest(self) -> str:
        """128 bits over the set of (joinid, nnz) pairs; sums, so that the order of reading does not matter."""
        return "".join(f"{value:016x}" for value in self._sums)

    def runs(self) -> Iterator[Run]:
        """The packed shards, in order of joinids. Empty tiles cost nothing."""
        start = end = rows = entries = 0
        for tile in np.flatnonzero(self._rows_of).tolist():
            more_rows, more_entries = int(self._rows_of[tile]), int(self._entries_of[tile])
            fits = rows + more_rows <= self._shard_rows
            fits = fits and entries + more_entries <= self._shard_rows * ENTRIES_PER_ROW
            if rows and not fits:
                yield Run(start * self._tile, end * self._tile, rows)
                rows = entries = 0
            if rows == 0:
                start = tile
            end, rows, entries = tile + 1, rows + more_rows, entries + more_entries
        if rows:
            yield Run(start * self._tile, end * self._tile, rows)
