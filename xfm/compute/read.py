"""One shard from its source to its tokens, in one process."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from xfm.core.errors import ShardRefused
from xfm.core.schema import REFUSED, ROW_ID
from xfm.core.source import Shard, Source
from xfm.core.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that was not computed, and why ("CODE: message")."""

    row_id: str
    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class ShardTokens:
    """The tokens of one shard's good rows, and its bad rows."""

    tokens: pa.Table
    refused: list[RefusedRow]


def read_tokens(source: Source, tokenizer: Tokenizer, shard: Shard) -> ShardTokens:
    """Reads and tokenises batch by batch, so that raw rows are never all in memory.

    Raises:
        ShardRefused: the file is broken, or it has not the rows it promised.
    """
    pieces: list[pa.RecordBatch] = []
    refused: list[RefusedRow] = []
    rows = 0
    for batch in source.read(shard):
        rows += batch.num_rows
        before = batch.column(REFUSED)
        tokens = tokenizer(batch)
        after = tokens.column(REFUSED)
        ids = tokens.column(ROW_ID)
        for i in range(batch.num_rows):
            if after[i].is_valid:
                stage = "read" if before[i].is_valid else "tokenise"
                refused.append(RefusedRow(ids[i].as_py(), stage, after[i].as_py()))
        pieces.append(tokens.filter(pc.is_null(after)).drop_columns([REFUSED]))
    if shard.rows is not None and rows != shard.rows:
        raise ShardRefused(
            "ROWS_CHANGED",
            f"shard {shard.key}: {shard.rows} rows promised, {rows} read. Was the data changed since listing?",
        )
    if not pieces:
        raise ShardRefused("NO_ROWS", f"shard {shard.key}: the source gave no row")
    return ShardTokens(pa.Table.from_batches(pieces), refused)
