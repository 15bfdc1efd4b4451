"""Where rows come from: shards that can be listed without data and read independently."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from xfm.core.schema import REFUSED, ROW_ID, SHARD

Arrays = Mapping[str, pa.Array]


@dataclass(frozen=True, slots=True)
class Shard:
    """One independently readable piece of a source; the unit of work, of determinism and of commit."""

    key: str  # stable and file-name safe, unique in the source: "census-2025-11-08-000017"
    start: int  # first row (or joinid) in the source's own coordinates
    stop: int  # one past the last
    rows: int | None  # exact count promised, or None where only reading can tell (a compressed file)
    path: str = ""  # the file it lies in, for sources made of files


class Source(Protocol):
    """A frozen config that knows how to list and read its rows."""

    @property
    def schema(self) -> pa.Schema:
        """Columns of every batch: always ROW_ID and SHARD as strings."""

    def shards(self) -> Sequence[Shard]:
        """All shards in fixed order. Runs on the driver and touches metadata only.

        A file that cannot be read is listed all the same: its shard raises `ShardRefused` when read.

        Raises:
            Refused: nothing at all can be read.
        """

    def read(self, shard: Shard) -> Iterator[pa.RecordBatch]:
        """Rows of one shard, in order. Runs on a worker; opens and closes what it needs.

        A bad row is not dropped: it carries a reason in REFUSED.

        Raises:
            ShardRefused: the shard's file is broken, or its rows differ from what was promised.
        """

    def genes(self) -> pa.Table | None:
        """The gene table, where it can be had without reading rows; None otherwise."""

    def identity(self) -> dict[str, Any]:
        """What the data are: release or file digests. Part of the fingerprint."""


def cut(word: str, rows: int, shard_rows: int, path: str = "") -> list[Shard]:
    """Ranges of rows as shards with the keys WORD-000000, WORD-000001, ..."""
    ranges = [(start, min(start + shard_rows, rows)) for start in range(0, rows, shard_rows)]
    return [Shard(f"{word}-{i:06d}", start, stop, stop - start, path) for i, (start, stop) in enumerate(ranges)]


def row_schema(content: Mapping[str, pa.DataType], obs: Mapping[str, pa.DataType]) -> pa.Schema:
    """Columns of every batch of a source: who a row is, what it holds, then the obs columns."""
    fixed = dict.fromkeys((ROW_ID, SHARD, REFUSED), pa.string())
    return pa.schema([*fixed.items(), *content.items(), *obs.items()])


def row_batch(
    row_ids: Sequence[str], shard: str, reasons: Mapping[int, str], content: Arrays, obs: Arrays
) -> pa.RecordBatch:
    """A batch of the columns of `row_schema`; `reasons` says "CODE: why" of the rows that are refused, by number."""
    fixed = [row_ids, [shard] * len(row_ids), [reasons.get(row) for row in range(len(row_ids))]]
    arrays = [*(pa.array(values, pa.string()) for values in fixed), *content.values(), *obs.values()]
    return pa.RecordBatch.from_arrays(arrays, [ROW_ID, SHARD, REFUSED, *content, *obs])
