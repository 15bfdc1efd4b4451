"""Rows of vectors as they leave a source: what sources of EMBEDDING share.

A row whose vector must not be used keeps its place and its row id and carries the reason in REFUSED; its vector is
whatever was found, or NaN where there is none, so that nothing can be computed with it by mistake.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.schema import EMBEDDING, REFUSED, ROW_ID, SHARD

F32 = NDArray[np.float32]


def embedding_schema(dim: int, obs: Mapping[str, pa.DataType]) -> pa.Schema:
    """Columns of every batch: the fixed ones, then the obs columns."""
    fixed = [pa.field(name, pa.string()) for name in (ROW_ID, SHARD, REFUSED)]
    vector = pa.field(EMBEDDING, pa.list_(pa.float32(), dim))
    return pa.schema([*fixed, vector, *(pa.field(name, kind) for name, kind in obs.items())])


def embedding_batch(
    vectors: F32, *, row_ids: Sequence[str], shard: str, obs: Mapping[str, pa.Array], absent: Mapping[int, str]
) -> pa.RecordBatch:
    """Check R rows and lay them out as one batch.

    Args:
        vectors: (R, D). One with a number that is not finite is refused: NOT_FINITE.
        row_ids: R names.
        shard: key of the shard.
        obs: columns of length R.
        absent: reasons ("CODE: why") of rows that have no vector.
    """
    rows, dim = vectors.shape
    odd = np.count_nonzero(~np.isfinite(vectors), axis=1)
    reasons = {
        int(row): f"NOT_FINITE: {odd[row]} of {dim} numbers of the embedding are not finite"
        for row in np.flatnonzero(odd)
    } | dict(absent)
    arrays = [
        pa.array(row_ids, pa.string()),
        pa.repeat(pa.scalar(shard, pa.string()), rows),
        pa.array([reasons.get(row) for row in range(rows)], pa.string()),
        vector_array(vectors),
        *obs.values(),
    ]
    schema = embedding_schema(dim, {name: column.type for name, column in obs.items()})
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def vector_array(vectors: F32) -> pa.FixedSizeListArray:
    """(R, D) numbers as R lists."""
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
