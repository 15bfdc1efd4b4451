"""Text to subword ids, by the tokenizer that came with a checkpoint.

The arithmetic is that of the package `tokenizers`; special tokens are those its template puts around a text. They are
told from content by their place, not by their id: an unknown word is [UNK], a special token, and content all the same.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from xfm.core.errors import Refused
from xfm.core.schema import INPUT_IDS, REFUSED, SHARD, TEXT, spoken
from xfm.core.tokenizer import Tokens
from xfm.tokenizers.ragged import RaggedIds, padded

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Subwords


@dataclass(frozen=True)
class TextTokenizer(RaggedIds):
    """One text a row, special tokens around it, cut at the right where it is too long."""

    subwords: "Subwords"  # cuts at `max_length` tokens and does not pad
    pad_id: int  # id at padding
    max_length: int  # longest row, special tokens included
    before: int  # before, after: special tokens in front of a text and behind it
    after: int
    _truncated: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """TEXT to ragged INPUT_IDS; one row in, one row out.

        Raises:
            Refused: NO_TEXT, the source gives no text.
        """
        if TEXT not in batch.schema.names:
            raise Refused("NO_TEXT", f"the source gives no text, only {spoken(batch.schema.names)}")
        reasons = batch.column(REFUSED).to_pylist()
        rows: list[list[int]] = []
        # One by one: `encode_batch` would take every core of a machine that runs other tasks beside this one.
        for i, text in enumerate(batch.column(TEXT).to_pylist()):
            if reasons[i] is not None:
                rows.append([])
                continue
            encoding = self.subwords.encode(text)
            rows.append(encoding.ids)
            if len(encoding.ids) <= self.before + self.after:
                reasons[i] = "EMPTY: nothing of the text becomes a token"
            if encoding.overflowing:
                shard = batch.column(SHARD)[i].as_py()
                self._truncated[shard] = self._truncated.get(shard, 0) + 1
        columns = {name: batch.column(name) for name in batch.schema.names if name not in (TEXT, REFUSED)}
        ends = np.concatenate([[0], np.cumsum([len(ids) for ids in rows], dtype=np.int64)])
        flat = np.fromiter((i for ids in rows for i in ids), dtype=np.int32, count=ends[-1])
        columns[REFUSED] = pa.array(reasons, pa.string())
        columns[INPUT_IDS] = pa.LargeListArray.from_arrays(ends, pa.array(flat))
        return pa.RecordBatch.from_pydict(columns)

    def collate(self, batch: pa.RecordBatch | pa.Table) -> Tokens:
        """Pads to the longest row: ids (B, T)."""
        import torch

        ids, is_token = padded(batch, INPUT_IDS, np.int64(self.pad_id))
        place = np.arange(is_token.shape[1])
        is_content = (place >= self.before) & (place < is_token.sum(axis=1, keepdims=True) - self.after)
        return Tokens(torch.from_numpy(ids), None, torch.from_numpy(is_token), torch.from_numpy(is_content))

    def describe(self) -> dict[str, Any]:
        """The limit, and how many texts this copy of the tokenizer cut there, by shard."""
        return {"max_length": self.max_length, "truncated": dict(self._truncated)}
