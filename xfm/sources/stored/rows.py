"""Rows of vectors as they leave a source: what sources of EMBEDDING share.

A row whose vector must not be used keeps its place and its row id and carries the reason in REFUSED; its vector is
whatever was found, or NaN where there is none, so that nothing can be computed with it by mistake.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.schema import EMBEDDING
from xfm.core.source import row_batch, row_schema

F32 = NDArray[np.float32]


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
    reasons = {
        int(row): f"NOT_FINITE: {odd[row]} of {vectors.shape[1]} numbers of the embedding are not finite"
        for row in np.flatnonzero(odd)
    } | dict(absent)
    return row_batch(row_ids, shard, reasons, {EMBEDDING: vector_array(vectors)}, obs)


def vector_array(vectors: F32) -> pa.FixedSizeListArray:
    """(R, D) numbers as R lists."""
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
