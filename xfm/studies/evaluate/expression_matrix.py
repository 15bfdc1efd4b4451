"""Expression of chosen cells as one sparse matrix, gathered from the shards of a source.

Files may name their genes differently: the identifier columns that agree best unite them, and genes that not every
file measures are left out, for their zeros would tell files apart instead of cells.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.errors import Refused, ShardRefused
from xfm.core.schema import COUNTS, GENE_IDS, GENE_TABLE_KEY, REFUSED, ROW_ID
from xfm.core.source import Source
from xfm.tokenizers.ragged import ragged, row_sums
from xfm.tokenizers.vocabulary import VERSIONED, gene_table

Key = tuple[str, int]  # name, and how many genes before had it


def common_genes(tables: Sequence[pa.Table]) -> tuple[tuple[str, ...], list[NDArray[np.int32]], tuple[str, ...]]:
    """The genes that every table holds, in the order of the first.

    Args:
        tables: one string column per kind of identifier, one row a gene.

    Returns:
        Names; for each table the place of each of its genes, -1 for those that others lack; notes.

    Raises:
        Refused: NO_COMMON_GENES.
    """
    if len(tables) == 1:
        name = max(tables[0].column_names, key=lambda name: len(set(_names(tables[0], name)) - {None}))
        names = [gene or f"gene {number}" for number, gene in enumerate(_names(tables[0], name))]
        return tuple(names), [np.arange(len(names), dtype=np.int32)], ()
    keys = [{name: _keys(_names(table, name)) for name in table.column_names} for table in tables]
    chosen = max((_nearest(column, keys) for column in keys[0].values()), key=lambda choice: len(_shared(choice)))
    shared = _shared(chosen)
    if not shared:
        shown = "; ".join(", ".join(f"{name} {_names(t, name)[:2]}" for name in t.column_names) for t in tables[:2])
        raise Refused("NO_COMMON_GENES", f"no gene is in all of {len(tables)} gene tables of the source: {shown}")
    place = {key: number for number, key in enumerate(key for key in chosen[0] if key in shared)}
    axes = [np.full(table.num_rows, -1, np.int32) for table in tables]
    for axis, column in zip(axes, chosen, strict=True):
        for key, gene in column.items():
            axis[gene] = place.get(key, -1)
    most = max(table.num_rows for table in tables)
    notes = (f"{len(place):,} genes are in all of {len(tables)} gene tables; the largest has {most:,}",)
    return tuple(name for name, _ in place), axes, notes


def _names(table: pa.Table, name: str) -> list[str | None]:
    return [None if gene is None else VERSIONED.sub(r"\1", gene) for gene in table[name].to_pylist()]


def _keys(names: Sequence[str | None]) -> dict[Key, int]:
    """Row of each gene that has a name."""
    seen: dict[str, int] = {}
    keys: dict[Key, int] = {}
    for row, name in enumerate(names):
        if name is not None:
            keys[name, seen.setdefault(name, 0)] = row
            seen[name] += 1
    return keys


def _nearest(reference: dict[Key, int], keys: Sequence[dict[str, dict[Key, int]]]) -> list[dict[Key, int]]:
    """A column of the first table, and of each other table the one that shares most with it."""
    others = [max(table.values(), key=lambda column: len(reference.keys() & column.keys())) for table in keys[1:]]
    return [reference, *others]


def _shared(columns: Sequence[dict[Key, int]]) -> set[Key]:
    return set(columns[0]).intersection(*columns[1:])


logger = logging.getLogger(__name__)

_SHOWN = 3  # rows or reasons in a message


@dataclass(frozen=True, slots=True)
class Measured:
    """Expression of N cells."""

    values: Any  # (N, G) sparse rows of float32, as the source gives them
    genes: tuple[str, ...]  # names of the G genes that every file measures
    totals: NDArray[np.float64]  # (N,) sum over all genes of a cell's file
    notes: tuple[str, ...]  # what a reader should know


class _Rows(NamedTuple):
    """Some cells of one batch: where they belong, and their entries."""

    positions: NDArray[np.int64]
    lengths: NDArray[np.int64]
    genes: NDArray[np.int32]
    values: NDArray[np.float32]
    table: int


def read_expression(source: Source, row_ids: Sequence[str]) -> Measured:
    """Reads all shards and keeps the rows named, in the order they are named.

    Memory: 8 bytes an entry of the kept cells, three times while they are put in order.

    Raises:
        Refused: DUPLICATE_ROWS or MISSING_ROWS; NO_COMMON_GENES; or what the source says where nothing can be read.
    """
    position = {row: number for number, row in enumerate(row_ids)}
    if len(position) < len(row_ids):
        raise Refused(
            "DUPLICATE_ROWS", f"{len(row_ids):,} rows were named by {len(position):,} ids; ids must not repeat"
        )
    reading = _Reading(position)
    kept = list(reading.rows(source))
    _check_complete(kept, row_ids, reading)
    totals = np.zeros(len(row_ids))
    for rows in kept:
        totals[rows.positions] = row_sums(np.concatenate([[0], np.cumsum(rows.lengths)]), rows.values)
    names, axes, notes = common_genes(reading.tables)
    return Measured(_assembled(kept, axes, len(row_ids), len(names)), names, totals, notes)


class _Reading:
    """What comes up while shards are read.

    Attributes:
        tables: different gene tables, in the order they were met.
        broken: shards that could not be read.
        reasons: why rows that are wanted were refused.
    """

    def __init__(self, position: dict[str, int]) -> None:
        self.position = position
        self.tables: list[pa.Table] = []
        self.broken: list[ShardRefused] = []
        self.reasons: list[str] = []
        self._numbers: dict[bytes, int] = {}

    def rows(self, source: Source) -> Iterator[_Rows]:
        """The wanted rows. A broken shard is passed over: its rows were not embedded either, or will be missed."""
        for shard in source.shards():
            try:
                for batch in source.read(shard):
                    if rows := self._of(batch):
                        yield rows
            except ShardRefused as problem:
                logger.warning("shard %s cannot be read: %s", shard.key, problem)
                self.broken.append(problem)

    def _of(self, batch: pa.RecordBatch) -> _Rows | None:
        ids = batch.column(ROW_ID).to_pylist()
        positions = np.fromiter((self.position.get(row, -1) for row in ids), np.int64, len(ids))
        for row, reason in enumerate(batch.column(REFUSED).to_pylist()):
            if reason is not None and positions[row] >= 0:
                self.reasons.append(f"{ids[row]}: {reason}")
                positions[row] = -1
        chosen = np.flatnonzero(positions >= 0)
        if not len(chosen):
            return None
        table = self._numbers.setdefault(batch.schema.metadata[GENE_TABLE_KEY], len(self.tables))
        if table == len(self.tables):
            self.tables.append(gene_table(batch.schema))
        taken = batch.select([GENE_IDS, COUNTS]).take(pa.array(chosen))
        offsets, genes = ragged(taken.column(GENE_IDS))
        _, values = ragged(taken.column(COUNTS))
        return _Rows(positions[chosen], np.diff(offsets), genes, values, table)


def _check_complete(kept: Sequence[_Rows], row_ids: Sequence[str], reading: _Reading) -> None:
    """Every row once.

    Raises:
        Refused: DUPLICATE_ROWS, MISSING_ROWS or the reason of the first broken shard.
    """
    found = np.zeros(len(row_ids), np.int64)
    for rows in kept:
        np.add.at(found, rows.positions, 1)
    if (repeated := np.flatnonzero(found > 1)).size:
        raise Refused(
            "DUPLICATE_ROWS",
            f"{len(repeated):,} of {len(row_ids):,} rows come more than once from the source: "
            f"{_examples(row_ids, repeated)}",
        )
    missing = np.flatnonzero(found == 0)
    if not len(missing):
        return
    if len(missing) == len(row_ids) and reading.broken:
        raise reading.broken[0]
    reasons = "; ".join([*map(str, reading.broken), *reading.reasons][:_SHOWN])
    raise Refused(
        "MISSING_ROWS",
        f"{len(missing):,} of {len(row_ids):,} rows are not in the source: {_examples(row_ids, missing)}"
        + (f". It says: {reasons}" if reasons else ""),
    )


def _examples(row_ids: Sequence[str], rows: NDArray[np.int64]) -> str:
    return ", ".join(row_ids[row] for row in rows[:_SHOWN]) + (", ..." if len(rows) > _SHOWN else "")


def _assembled(kept: list[_Rows], axes: Sequence[NDArray[np.int32]], n: int, n_genes: int) -> Any:
    """(n, n_genes) CSR with sorted genes; empties `kept` on the way."""
    import scipy.sparse

    lengths = np.zeros(n, np.int64)
    for number, rows in enumerate(kept):
        genes = axes[rows.table][rows.genes]
        there = genes >= 0
        ends = np.concatenate([[0], np.cumsum(there)])[np.cumsum(rows.lengths)]
        kept[number] = rows._replace(lengths=np.diff(ends, prepend=0), genes=genes[there], values=rows.values[there])
        lengths[rows.positions] = kept[number].lengths
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    indices, data = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
    while kept:
        rows = kept.pop()
        starts = np.cumsum(rows.lengths) - rows.lengths
        where = np.repeat(indptr[rows.positions] - starts, rows.lengths) + np.arange(len(rows.values))
        indices[where], data[where] = rows.genes, rows.values
    matrix = scipy.sparse.csr_matrix((data, indices, indptr), shape=(n, n_genes))
    matrix.sort_indices()
    return matrix
