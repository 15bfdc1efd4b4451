"""Tokenised cells on disk, read by training workers part by part, with a bounded number of cells in memory."""

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from xfm.core.errors import EnvironmentProblem
from xfm.core.ledger import part_name
from xfm.core.schema import INPUT_IDS, VALUES
from xfm.core.storage import open_storage
from xfm.loops.pretrain_data import IS_VALIDATION, WINDOW_CELLS

I64 = NDArray[np.int64]
CACHE_CELLS = 3 * WINDOW_CELLS // 2  # a window, and the end of the one before it
THREADS = 8


@dataclass(frozen=True, slots=True)
class TokenParts:
    """The recipe of a token store: it travels, the store does not.

    Attributes:
        uri: absolute, of the OUTPUT that holds the parts.
        keys: of the parts.
        training, validation: cells of each part on either side; training cells stand first.
    """

    uri: str
    keys: tuple[str, ...]
    training: tuple[int, ...]
    validation: tuple[int, ...]


class TokenStore:
    """Cells by part and row. A part is read when a cell of it is asked for; the least recently used are forgotten."""

    def __init__(self, parts: TokenParts, cache_cells: int = CACHE_CELLS) -> None:
        self.parts, self.cache_cells = parts, cache_cells
        self._read: OrderedDict[int, pa.Table] = OrderedDict()

    def take(self, parts: I64, rows: I64) -> pa.Table:
        """(N,) part numbers and rows to input_ids and values of N cells, sorted by part and row."""
        pieces = [self._part(part).take(np.sort(rows[parts == part])) for part in np.unique(parts).tolist()]
        return pa.concat_tables(pieces)

    def _part(self, number: int) -> pa.Table:
        if number not in self._read:
            self._read[number] = _read(self.parts.uri, self.parts.keys[number], [INPUT_IDS, VALUES])
            while len(self._read) > 1 and sum(table.num_rows for table in self._read.values()) > self.cache_cells:
                self._read.popitem(last=False)
        self._read.move_to_end(number)
        return self._read[number]


def token_parts(uri: str, keys: Sequence[str]) -> TokenParts:
    """Counts the cells of committed parts."""
    with ThreadPoolExecutor(THREADS) as pool:
        counts = list(pool.map(lambda key: _count(uri, key), keys))
    return TokenParts(uri, tuple(keys), tuple(count for count, _ in counts), tuple(count for _, count in counts))


def _count(uri: str, key: str) -> tuple[int, int]:
    table = _read(uri, key, [IS_VALIDATION])
    held: Any = pc.sum(table[IS_VALIDATION])
    validation = held.as_py() or 0
    return table.num_rows - validation, validation


def _read(uri: str, key: str, columns: list[str]) -> pa.Table:
    data = open_storage(uri).read(part_name(key))
    if data is None:
        raise EnvironmentProblem(f"{uri}/{part_name(key)} cannot be seen on this machine; OUTPUT must be a folder that "
                                 "all nodes share, or a bucket")  # fmt: skip
    return pq.read_table(pa.BufferReader(data), columns=columns)
