"""Rows that are vectors already: what another model said of a cell, beside the words for its type."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.schema import EMBEDDING, REFUSED
from xfm.core.tokenizer import Tokens

GENE, TEXT = 0, 1  # the two tokens of a row


@dataclass(frozen=True, slots=True)
class EmbeddingTokenizer:
    """A row has two tokens: its embedding, and its text, whose id is its place among the labels.

    Attributes:
        text_column: obs column of the words, e.g. cell_type.
        labels: known texts; empty while a network is still to learn which there are, and every text is then kept.
    """

    text_column: str
    labels: tuple[str, ...] = ()

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The same columns. Refuses a vector with numbers that are not finite (NOT_FINITE), a row without words
        (NO_TEXT), and words that are none of `labels` (UNKNOWN_LABEL)."""
        place = batch.schema.get_field_index(REFUSED)
        reasons = [
            before or self._reason(vector, text)
            for before, vector, text in zip(
                batch.column(place).to_pylist(), vectors_of(batch.column(EMBEDDING)),
                batch.column(self.text_column).cast(pa.string()).to_pylist(), strict=True,
            )
        ]  # fmt: skip
        return batch.set_column(place, pa.field(REFUSED, pa.string()), pa.array(reasons, pa.string()))

    def _reason(self, vector: NDArray[np.float32], text: str | None) -> str | None:
        if not np.isfinite(vector).all():
            return f"NOT_FINITE: {np.count_nonzero(~np.isfinite(vector))} of {len(vector)} numbers of the embedding"
        if text is None or not text.strip():
            return f"NO_TEXT: no {self.text_column}"
        if self.labels and text not in self.labels:
            return f"UNKNOWN_LABEL: {self.text_column} {text!r} is none of the {len(self.labels)} that are known"
        return None

    def collate(self, batch: pa.RecordBatch | pa.Table) -> Tokens:
        """N rows to (N, 2) ids, the embedding's 0 and the text's place among `labels`; vectors are (N, 1, D)."""
        import torch

        ids = torch.zeros(batch.num_rows, 2, dtype=torch.int64)
        if self.labels:
            place = {label: number for number, label in enumerate(self.labels)}
            ids[:, TEXT] = torch.tensor([place[text] for text in _column(batch, self.text_column).to_pylist()])
        held = torch.ones(batch.num_rows, 2, dtype=torch.bool)
        vectors = torch.from_numpy(vectors_of(_column(batch, EMBEDDING)).copy())
        return Tokens(ids, None, held, held, vectors=vectors[:, None])

    def lengths(self, rows: pa.Table) -> NDArray[np.int64]:
        """(N,) twos."""
        return np.full(rows.num_rows, 2, np.int64)

    def for_training(self) -> Self:
        """The same."""
        return self

    def describe(self) -> dict[str, Any]:
        """What is read."""
        return {"text_column": self.text_column, "labels": len(self.labels)}


def vectors_of(column: pa.Array | pa.ChunkedArray) -> NDArray[np.float32]:
    """(N, D) of a column of fixed-size lists."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    flat = whole.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(len(column), column.type.list_size)


def _column(batch: pa.RecordBatch | pa.Table, name: str) -> pa.Array | pa.ChunkedArray:
    return batch.column(batch.schema.get_field_index(name))
