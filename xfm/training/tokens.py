"""Tokenised rows on disk, split into train, validation and test, and read by training workers part by part."""

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from xfm.core.errors import EnvironmentProblem, Refused
from xfm.core.ledger import part_name
from xfm.core.parts import LEFT_OUT, TEST, TRAIN, VALIDATION, Part, part_of
from xfm.core.random import key64, rng_for, uniform
from xfm.core.schema import EMBEDDING, INPUT_IDS, N_TOKENS, PART, ROW_ID, spoken
from xfm.core.storage import open_storage
from xfm.tokenizers.ragged import row_lengths
from xfm.training.order import WINDOW_ROWS

I64 = NDArray[np.int64]
CACHE_ROWS = 3 * WINDOW_ROWS // 2  # a window, and the end of the one before it
THREADS = 8


class RowReader(Protocol):
    """Tokenised rows in parts; inside a part training rows come first, then validation rows, then test rows."""

    def take(self, parts: I64, rows: I64) -> pa.Table:
        """(N,) part numbers and rows in them to N rows, sorted by part and row."""


@dataclass(frozen=True, slots=True)
class TokenParts:
    """The recipe of a token store: it travels, the store does not."""

    uri: str  # absolute, of the OUTPUT that holds the parts
    keys: tuple[str, ...]  # of the parts
    sizes: tuple[tuple[int, int, int], ...]  # training, validation and test rows of each part, which lie in this order
    left_out: int = 0  # rows in all parts that belong to none of them, e.g. without a label.

    def count(self, part: Part) -> list[int]:
        """Rows of TRAIN, VALIDATION or TEST in each part."""
        return [sizes[part] for sizes in self.sizes]

    def offsets(self, part: Part) -> I64:
        """Where they begin in each part."""
        return np.array([sum(sizes[:part]) for sizes in self.sizes], np.int64)

    def everything(self, part: Part) -> tuple[I64, I64]:
        """(N,) part numbers and rows of all its rows, in the order of the parts."""
        counts = np.array(self.count(part), np.int64)
        numbers = np.repeat(np.arange(len(counts)), counts)
        rows = np.arange(len(numbers)) - np.repeat(np.cumsum(counts) - counts, counts)
        return numbers, rows + self.offsets(part)[numbers]

    def sample(self, part: Part, most: int, seed: int) -> tuple[I64, I64]:
        """At most so many of them, drawn by the seed, in their order."""
        numbers, rows = self.everything(part)
        chosen = np.sort(rng_for(seed, "validation").permutation(len(rows))[:most])
        return numbers[chosen], rows[chosen]


class TokenStore:
    """Rows by part and number. A part is read when a row of it is asked for; the least recently used are forgotten.

    Several threads may ask: the trainer prepares a batch while it validates.
    """

    def __init__(self, parts: TokenParts, cache_rows: int = CACHE_ROWS) -> None:
        self.parts, self.cache_rows = parts, cache_rows
        self._read: OrderedDict[int, pa.Table] = OrderedDict()
        self._lock = Lock()

    def take(self, parts: I64, rows: I64) -> pa.Table:
        """(N,) part numbers and rows to N rows, sorted by part and row."""
        pieces = [self._part(part).take(np.sort(rows[parts == part])) for part in np.unique(parts).tolist()]
        return pa.concat_tables(pieces)

    def column(self, name: str) -> list[pa.ChunkedArray]:
        """One column of every part, read alone."""
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(lambda key: _read(self.parts.uri, key, [name])[name], self.parts.keys))

    def _part(self, number: int) -> pa.Table:
        with self._lock:
            if number not in self._read:
                self._read[number] = _read(self.parts.uri, self.parts.keys[number])
                while len(self._read) > 1 and sum(table.num_rows for table in self._read.values()) > self.cache_rows:
                    self._read.popitem(last=False)
            self._read.move_to_end(number)
            return self._read[number]


class SplitRows:
    """Maps a shard's tokens to what training needs of them: sorted into train, validation, test and left out.

    Args:
        seed: keys the split.
        validation, test: shares of rows, where the data do not come split.
        group: obs column whose values never stand on two sides, or None to split by row.
        split: obs column that says train, validation or test; the shares then count for nothing, but for validation
            rows where the data have none (`validation` is then a share of the training rows).
        labels: obs columns that every row must have; rows without are left out.
        carve: whether validation rows are to be taken from training rows although `split` is given.
        has_test: False drops test rows where they are read: what is not stored, no trial of a search can see.
    """

    def __init__(
        self,
        seed: int,
        validation: float,
        test: float = 0.0,
        group: str | None = None,
        *,
        split: str | None = None,
        labels: Sequence[str] = (),
        carve: bool = False,
        has_test: bool = True,
    ) -> None:
        self.seed, self.validation, self.test, self.group = seed, validation, test, group
        self.split, self.labels, self.carve, self.has_test = split, tuple(labels), carve, has_test

    def __call__(self, tokens: pa.Table) -> pa.Table:
        """N rows to the same rows in the order of PART, with PART and N_TOKENS.

        Raises:
            Refused: NO_COLUMN or BAD_SPLIT.
        """
        part = self._hashed(tokens) if self.split is None else self._given(tokens, self.split)
        for name in self.labels:
            part[_column(tokens, name, "label").is_null().to_numpy()] = LEFT_OUT
        lengths = row_lengths(tokens) if INPUT_IDS in tokens.column_names else np.ones(len(part), np.int64)
        tokens = tokens.append_column(PART, pa.array(part, pa.int8()))
        tokens = tokens.append_column(N_TOKENS, pa.array(lengths.astype(np.int32)))
        order = np.argsort(part, kind="stable")
        return tokens.take(order if self.has_test else order[part[order] != TEST])

    def _hashed(self, tokens: pa.Table) -> NDArray[np.int8]:
        place = self._places(tokens)
        below = place < self.validation
        return np.where(below, VALIDATION, np.where(place >= 1 - self.test, TEST, TRAIN)).astype(np.int8)

    def _given(self, tokens: pa.Table, name: str) -> NDArray[np.int8]:
        words = _column(tokens, name, "split").cast(pa.string()).to_pylist()
        known = [LEFT_OUT if word is None else part_of(word) for word in words]
        if None in known:
            odd = words[known.index(None)]
            raise Refused("BAD_SPLIT", f"--split {name}: {odd!r} is none of train, validation, test")
        part = np.array(known, np.int8)
        if self.carve:
            part[(part == TRAIN) & (self._places(tokens) < self.validation)] = VALIDATION
        return part

    def _places(self, tokens: pa.Table) -> NDArray[np.float64]:
        """(N,) numbers in [0, 1) that follow from the row's id, or its group."""
        keys = _column(tokens, self.group or ROW_ID, "group").to_pylist()
        words = np.fromiter((key64(self.seed, f"validation\x1f{key}") for key in keys), np.uint64, len(keys))
        return uniform(words)


def embedding_width(store: RowReader, parts: TokenParts) -> int:
    """Numbers of an embedding, of one row."""
    first = next(number for number, sizes in enumerate(parts.sizes) if sum(sizes))
    return int(store.take(np.array([first]), np.array([0]))[EMBEDDING].type.list_size)


def strings_at(columns: Sequence[pa.ChunkedArray], parts: I64, rows: I64) -> pa.ChunkedArray:
    """(N,) strings: one column, as `TokenStore.column` gives it, of some rows, in the order of the parts."""
    # Each part may have a type of its own, e.g. another dictionary.
    pieces = [columns[part].take(pa.array(rows[parts == part])).cast(pa.string()) for part in np.unique(parts).tolist()]
    return pa.chunked_array([chunk for piece in pieces for chunk in piece.chunks], pa.string())


def token_parts(uri: str, keys: Sequence[str]) -> TokenParts:
    """Counts the rows of committed parts."""
    with ThreadPoolExecutor(THREADS) as pool:
        counts = list(pool.map(lambda key: _count(uri, key), keys))
    sizes = tuple((train, validation, test) for train, validation, test, _ in counts)
    return TokenParts(uri, tuple(keys), sizes, sum(left_out for *_, left_out in counts))


def _count(uri: str, key: str) -> tuple[int, int, int, int]:
    found = np.bincount(_read(uri, key, [PART])[PART].to_numpy(), minlength=len(Part))
    return int(found[TRAIN]), int(found[VALIDATION]), int(found[TEST]), int(found[LEFT_OUT])


def _column(tokens: pa.Table, name: str, flag: str) -> pa.ChunkedArray:
    if name not in tokens.column_names:
        raise Refused("NO_COLUMN", f"--{flag} {name}: the rows bring {spoken(tokens.column_names)}. Add it to "
                      "--source.obs")  # fmt: skip
    return tokens[name]


def _read(uri: str, key: str, columns: list[str] | None = None) -> pa.Table:
    data = open_storage(uri).read(part_name(key))
    if data is None:
        raise EnvironmentProblem(f"{uri}/{part_name(key)} cannot be seen on this machine; OUTPUT must be a folder that "
                                 "all nodes share, or a bucket")  # fmt: skip
    return pq.read_table(pa.BufferReader(data), columns=columns)
