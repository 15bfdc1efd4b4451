"""Rows of cells as they leave a source: counts, zeros removed, genes in the order of the gene table; or vectors.

Everything is vectorised over a batch. A row that must not be turned into numbers keeps its place, its row id and its
obs columns, and carries the reason in REFUSED. It has no genes; its vector is whatever was found, or NaN where there is
none, so that nothing can be computed with it by mistake.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.schema import COUNTS, EMBEDDING, GENE_IDS, GENE_TABLE_KEY
from xfm.core.source import row_batch, row_schema

F32 = NDArray[np.float32]
# Above this, float32 no longer tells neighbouring integers apart.
MAX_COUNT = 2**24
NEARLY = 1e-4  # a count this near to a whole number is one, but for the arithmetic that it has been through


def is_whole(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which values pass for whole numbers."""
    with np.errstate(invalid="ignore"):
        found: NDArray[np.bool_] = np.abs(values - np.rint(values)) <= NEARLY
    return found


class CheckedRows(NamedTuple):
    """R rows in compressed sparse row form, with N stored entries."""

    indptr: NDArray[np.int64]  # (R + 1,) int64, starts at 0
    indices: NDArray[Any]  # (N,) gene of each entry, already known to lie in the gene table
    data: NDArray[Any]  # (N,) values in the type they were stored in


def of_genes(rows: CheckedRows, is_gene: NDArray[np.bool_]) -> CheckedRows:
    """The same rows without the columns that are no genes; the others are numbered anew."""
    kept = is_gene[rows.indices]
    indptr = np.concatenate([[0], np.cumsum(kept)])[rows.indptr]
    return CheckedRows(indptr, (np.cumsum(is_gene) - 1)[rows.indices[kept]], rows.data[kept])


def cell_schema(obs: Mapping[str, pa.DataType]) -> pa.Schema:
    """Columns of every batch of cells: the fixed ones, then the obs columns."""
    content = {GENE_IDS: pa.large_list(pa.int32()), COUNTS: pa.large_list(pa.float32())}
    return row_schema(content, obs)


def cell_batch(
    rows: CheckedRows, *, row_ids: list[str], shard: str, obs: Mapping[str, pa.Array], genes: bytes, counts: bool
) -> pa.RecordBatch:
    """Check R rows and lay them out as one batch.

    Args:
        rows: R rows, columns in any order.
        row_ids: R names, unique over the job.
        genes: the encoded gene table, see `gene_table.encode_genes`.
        counts: whether values must be whole numbers up to 2**24, and are rounded where they nearly are; else they must
            merely be finite and not negative.
    """
    rows = _sorted(CheckedRows(rows.indptr, rows.indices.astype(np.int32, copy=False), rows.data))
    refused = _reasons(rows, counts)
    if counts and rows.data.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            rows = rows._replace(data=np.rint(rows.data))  # of rows that stay, each is whole but for round-off
    with np.errstate(over="ignore", invalid="ignore"):
        values = rows.data.astype(np.float32)
    keep = values != 0
    for row in refused:
        keep[rows.indptr[row] : rows.indptr[row + 1]] = False
    indptr, indices = rows.indptr, rows.indices
    if not keep.all():
        indptr = np.concatenate([[0], np.cumsum(keep)])[indptr]
        indices, values = indices[keep], values[keep]
    offsets = pa.array(indptr, pa.int64())
    content = {
        GENE_IDS: pa.LargeListArray.from_arrays(offsets, pa.array(indices)),
        COUNTS: pa.LargeListArray.from_arrays(offsets, pa.array(values)),
    }
    return row_batch(row_ids, shard, refused, content, obs).replace_schema_metadata({GENE_TABLE_KEY: genes})


def embedding_schema(dim: int, obs: Mapping[str, pa.DataType]) -> pa.Schema:
    """Columns of every batch: the fixed ones, then the obs columns."""
    return row_schema({EMBEDDING: pa.list_(pa.float32(), dim)}, obs)


def embedding_batch(
    vectors: F32, *, row_ids: Sequence[str], shard: str, obs: Mapping[str, pa.Array], absent: Mapping[int, str]
) -> pa.RecordBatch:
    """Check R rows and lay them out as one batch.

    Args:
        vectors: (R, D). One with a number that is not finite is refused: NOT_FINITE.
        absent: reasons ("CODE: why") of rows that have no vector.
    """
    odd = np.count_nonzero(~np.isfinite(vectors), axis=1)
    why = f"of {vectors.shape[1]} numbers of the embedding are not finite"
    reasons = {int(row): f"NOT_FINITE: {odd[row]} {why}" for row in np.flatnonzero(odd)}
    return row_batch(row_ids, shard, reasons | dict(absent), {EMBEDDING: vector_array(vectors)}, obs)


def vector_array(vectors: F32) -> pa.FixedSizeListArray:
    """(R, D) numbers as R lists."""
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def _steps(rows: CheckedRows) -> NDArray[np.int32]:
    """(N,) distance to the previous gene of the same row; 1 at the start of a row."""
    steps = np.ones(len(rows.indices), dtype=np.int32)
    np.subtract(rows.indices[1:], rows.indices[:-1], out=steps[1:])
    starts = rows.indptr[:-1]
    steps[starts[starts < len(steps)]] = 1
    return steps


def _sorted(rows: CheckedRows) -> CheckedRows:
    """The same rows with ascending genes."""
    if (_steps(rows) >= 0).all():
        return rows
    row_of_entry = np.repeat(np.arange(len(rows.indptr) - 1), np.diff(rows.indptr))
    order = np.lexsort((rows.indices, row_of_entry))
    return CheckedRows(rows.indptr, rows.indices[order], rows.data[order])


def _reasons(rows: CheckedRows, counts: bool) -> dict[int, str]:
    """Why a row is refused, for every row that is: row number to "CODE: why"."""
    data, steps = rows.data, _steps(rows)
    limit = MAX_COUNT if counts else float(np.finfo(np.float32).max)
    # NaN fails every comparison, so a batch that passes here holds none.
    is_sound = len(data) == 0 or (data.min() >= 0 and data.max() <= limit and steps.min() > 0)
    if is_sound and (not counts or data.dtype.kind in "iu" or is_whole(data).all()):
        return {}
    infinite = np.isinf(data) if data.dtype.kind == "f" else np.zeros(len(data), dtype=bool)
    checks = [
        ("NAN", data != data, "not a number"),
        ("INFINITE", infinite, "not a finite number"),
        ("NEGATIVE", data < 0, "counts and log values are never negative"),
        ("TOO_LARGE", data > limit, "more than 2**24" if counts else "more than float32 can hold"),
        ("DUPLICATE_ENTRY", steps == 0, "the gene is stored twice in this row"),
        ("NOT_COUNTS", ~is_whole(data) & counts, "counts are whole numbers"),
    ]
    found: dict[int, str] = {}
    for code, bad, why in checks:
        entries = np.flatnonzero(bad)
        of_row = np.searchsorted(rows.indptr, entries, side="right") - 1
        first_rows, first = np.unique(of_row, return_index=True)
        for row, entry in zip(first_rows.tolist(), entries[first].tolist(), strict=True):
            found.setdefault(row, f"{code}: {data[entry]} at gene {rows.indices[entry]}; {why}")
    return found
