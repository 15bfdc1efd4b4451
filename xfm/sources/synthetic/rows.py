"""What sources that make their rows have in common: a table of all rows, filtered, cut into shards of one key each."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import PositiveInt

from xfm.core.config import Config
from xfm.core.errors import Refused, ShardRefused
from xfm.core.schema import REFUSED, SHARD
from xfm.core.source import Shard, cut, row_schema

BATCH_ROWS = 256


class MadeRows(Config):
    """Rows that are a function of the config alone. A source says which rows there are and makes some of them."""

    seed: int = 0
    """Of everything that is drawn; which split a row belongs to does not depend on it."""
    shard_rows: PositiveInt = 1024
    """Rows in one shard."""

    @abstractmethod
    def _content(self) -> dict[str, pa.DataType]:
        """Name and type of the column of the text, the picture or the vector."""

    @abstractmethod
    def _columns(self) -> Sequence[str]:
        """Names of the obs columns, all of them text."""

    @abstractmethod
    def _rows(self) -> NDArray[np.int64]:
        """(N,) numbers of the rows that the fields select, ascending."""

    @abstractmethod
    def _make(self, rows: NDArray[np.int64]) -> Mapping[str, list[str] | list[bytes] | pa.Array]:
        """Values of row id, content and obs columns of some rows."""

    @property
    def schema(self) -> pa.Schema:
        return row_schema(self._content(), dict.fromkeys(self._columns(), pa.string()))

    def shards(self) -> Sequence[Shard]:
        """Ranges of the selected rows.

        Raises:
            Refused: NO_ROWS, nothing is selected.
        """
        n = len(self._rows())
        if n == 0:
            raise Refused("NO_ROWS", f"no row is selected by {self.model_dump_json(exclude_defaults=True)}")
        return cut(self.model_dump()["kind"], n, self.shard_rows)

    def read(self, shard: Shard) -> Iterator[pa.RecordBatch]:
        """Batches of at most 256 rows.

        Raises:
            ShardRefused: ROWS_CHANGED, the shard was listed for other settings.
        """
        chosen = self._rows()[shard.start : shard.stop]
        if len(chosen) != shard.rows:
            raise ShardRefused("ROWS_CHANGED", f"{shard.key}: {shard.rows} rows promised, {len(chosen)} there")
        for low in range(0, len(chosen), BATCH_ROWS):
            rows = chosen[low : low + BATCH_ROWS]
            values = {**self._make(rows), SHARD: [shard.key] * len(rows), REFUSED: [None] * len(rows)}
            yield pa.record_batch([pa.array(values[f.name], f.type) for f in self.schema], schema=self.schema)

    def genes(self) -> pa.Table | None:
        return None


class Made(MadeRows):
    """Made rows of which each belongs to a split by nature."""

    split: Literal["train", "validation", "test"] | None = None
    """Only the rows of this split."""
