"""Vectors that a source gives, on their way into parts as they are: an embed job without a network."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.schema import EMBEDDING, RESERVED, SHARD
from xfm.core.tokenizer import Tokens


def stored_name(source: Any) -> str:
    """What a source's vectors are stored as: the name it knows them by, e.g. mean_l07 or geneformer, else embedding."""
    for field in ("column", "embedding"):
        name = getattr(source, field, None)
        if isinstance(name, str) and name not in RESERVED and name not in getattr(source, "obs", ()):
            return name
    return EMBEDDING


@dataclass(frozen=True, slots=True)
class AsGiven:
    """Stands where a backbone's recipe stands and where its tokenizer does: rows pass as they are.

    The source has refused those without a vector, or with numbers that are not finite.
    """

    def tokenizer(self, seed: int) -> Self:  # noqa: ARG002
        return self

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The same batch."""
        return batch

    def collate(self, batch: pa.RecordBatch | pa.Table) -> Tokens:
        """Nothing reads these rows as tokens."""
        raise TypeError(f"{batch.num_rows} rows of vectors have no tokens")

    def lengths(self, rows: pa.Table) -> NDArray[np.int64]:
        """(N,) ones."""
        return np.ones(rows.num_rows, np.int64)

    def for_training(self) -> Self:
        return self

    def describe(self) -> dict[str, Any]:
        """Nothing was matched or dropped."""
        return {}


class VectorPart:
    """Where an embedder stands: lays out a shard's rows as an embed job does.

    Args:
        column: what the vectors are stored as.
    """

    def __init__(self, column: str) -> None:
        self.column = column

    def __call__(self, rows: pa.Table) -> pa.Table:
        """row_id, obs columns, and the vectors under their name, last."""
        kept = [name for name in rows.column_names if name not in (SHARD, EMBEDDING)]
        return rows.select(kept).append_column(self.column, rows[EMBEDDING])
