"""The parts of all rows of a source, as a worker holds them: what every source with a field `split` shares."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.errors import Refused, ShardRefused
from xfm.core.parts import PARTS
from xfm.core.random import key64
from xfm.sources.cell_split import SPLIT, CellSplit, Codes, digest_of


@dataclass(frozen=True, slots=True, eq=False)
class RowParts:
    """9 bytes a row."""

    keys: NDArray[np.uint64]  # (N,) rising hashes of the row ids
    parts: Codes  # (N,) of `core.parts`, in the order of the keys
    digest: str  # over row ids and parts

    def column(self, row_ids: Sequence[str]) -> pa.Array:
        """(n,) words of some of the rows.

        Raises:
            ShardRefused: ROWS_CHANGED, a row is not among those that were split.
        """
        wanted = _keys(row_ids)
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        if (strange := self.keys[place] != wanted).any():
            raise ShardRefused("ROWS_CHANGED", f"row {row_ids[int(np.argmax(strange))]!r} was not there when the rows "
                               "were split. Were the data changed since?")  # fmt: skip
        return pa.array(np.array([part.word for part in PARTS], dtype=object)[self.parts[place]], pa.string())


def split_rows(split: CellSplit, row_ids: Sequence[str], columns: pa.Table) -> RowParts:
    """Splits all rows of a source.

    Raises:
        Refused: as `CellSplit.parts`.
    """
    parts, keys = split.parts(row_ids, columns), _keys(row_ids)
    order = np.argsort(keys, kind="stable")
    return RowParts(keys[order], parts[order], digest_of(row_ids, parts))


def without_split(obs: Sequence[str], split: CellSplit | None) -> tuple[str, ...]:
    """The obs columns that a source reads: all but the one that the split brings."""
    return tuple(name for name in obs if split is None or name != SPLIT)


def with_split(obs: Sequence[str], split: CellSplit | None) -> tuple[str, ...]:
    """The obs columns that a source gives: the split's last, where there is one."""
    return (*without_split(obs, split), *((SPLIT,) if split is not None else ()))


def refuse_no_split(obs: Sequence[str], split: CellSplit | None, known: Sequence[str]) -> None:
    """Where a column `split` is asked for that nobody brings.

    Raises:
        Refused: NO_SPLIT.
    """
    if split is None and SPLIT in obs and SPLIT not in known:
        raise Refused("NO_SPLIT", f"the data have no column {SPLIT!r}; --source.split stratified_cell draws one "
                      "(random_cell, held_out_types)")  # fmt: skip


def _keys(row_ids: Sequence[str]) -> NDArray[np.uint64]:
    return np.fromiter((key64(0, row) for row in row_ids), np.uint64, len(row_ids))
