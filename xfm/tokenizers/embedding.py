"""Rows that are vectors already: what another model said of a cell, beside the words for its type."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.errors import Refused
from xfm.core.schema import EMBEDDING, REFUSED, spoken
from xfm.core.tokenizer import Tokens

GENE, TEXT = 0, 1  # the two tokens of a row


@dataclass(frozen=True, slots=True)
class EmbeddingTokenizer:
    """A row has two tokens: its embedding, and its text, whose id is its place among the labels."""

    text_column: str  # obs column of the words, e.g. cell_type.
    # known texts; empty while a network is still to learn which there are, and every text is then kept
    labels: tuple[str, ...] = ()
    is_open: bool = False  # rows with other words are kept all the same: who trains encodes them

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The same columns. Refuses a row without a vector (NO_EMBEDDING) or with numbers that are not finite
        (NOT_FINITE), a row without words (NO_TEXT), and words that are none of `labels` (UNKNOWN_LABEL).

        Raises:
            Refused: NO_COLUMN, the source does not carry `text_column`.
        """
        if self.text_column not in batch.schema.names:
            raise Refused("NO_COLUMN", f"the words are to come from {self.text_column!r}; the source carries "
                          f"{spoken(batch.schema.names)}. Put it into --source.obs")  # fmt: skip
        place = batch.schema.get_field_index(REFUSED)
        given = batch.column(EMBEDDING)
        reasons = [
            before or ("NO_EMBEDDING: the row has no vector" if is_null else self._reason(vector, text))
            for before, is_null, vector, text in zip(
                batch.column(place).to_pylist(), given.is_null().to_pylist(), vectors_of(given),
                batch.column(self.text_column).cast(pa.string()).to_pylist(), strict=True,
            )
        ]  # fmt: skip
        return batch.set_column(place, pa.field(REFUSED, pa.string()), pa.array(reasons, pa.string()))

    def _reason(self, vector: NDArray[np.float32], text: str | None) -> str | None:
        if not np.isfinite(vector).all():
            return f"NOT_FINITE: {np.count_nonzero(~np.isfinite(vector))} of {len(vector)} numbers of the embedding"
        if text is None or not text.strip():
            return f"NO_TEXT: no {self.text_column}"
        if self.labels and not self.is_open and text not in self.labels:
            return f"UNKNOWN_LABEL: {self.text_column} {text!r} is none of the {len(self.labels)} that are known"
        return None

    def collate(self, batch: pa.RecordBatch | pa.Table) -> Tokens:
        """N rows to (N, 2) ids, the embedding's 0 and the text's place among `labels`; vectors are (N, 1, D).

        Raises:
            Refused: UNKNOWN_LABEL, a row that was kept because `is_open` has no place.
        """
        import torch

        ids = torch.zeros(batch.num_rows, 2, dtype=torch.int64)
        if self.labels:
            place = {label: number for number, label in enumerate(self.labels)}
            texts = batch.column(self.text_column).to_pylist()
            if odd := [text for text in texts if text not in place]:
                raise Refused("UNKNOWN_LABEL", f"{odd[0]!r} is none of the {len(place)} labels that the network knows")
            ids[:, TEXT] = torch.tensor([place[text] for text in texts])
        held = torch.ones(batch.num_rows, 2, dtype=torch.bool)
        vectors = torch.from_numpy(vectors_of(batch.column(EMBEDDING)).copy())
        return Tokens(ids, None, held, held, vectors=vectors[:, None])

    def lengths(self, rows: pa.Table) -> NDArray[np.int64]:
        """(N,) twos."""
        return np.full(rows.num_rows, 2, np.int64)

    def for_training(self) -> Self:
        """Words that no checkpoint knows are kept: a learner encodes them before it starts."""
        return replace(self, is_open=True)

    def describe(self) -> dict[str, Any]:
        return {"text_column": self.text_column, "labels": len(self.labels)}


def vectors_of(column: pa.Array | pa.ChunkedArray) -> NDArray[np.float32]:
    """(N, D) of a column of fixed-size lists; NaN where a row has none."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    flat = np.asarray(whole.flatten().to_numpy(zero_copy_only=False), np.float32)
    held = whole.is_valid().to_numpy(zero_copy_only=False)
    if held.all():
        return flat.reshape(len(column), column.type.list_size)
    vectors = np.full((len(column), column.type.list_size), np.nan, np.float32)
    vectors[held] = flat.reshape(-1, column.type.list_size)
    return vectors
