"""What cells of Census are split by, and their parts: drawn once for the same cells with the same values.

A release never changes; a store of one's own may be written again while a process lives. Its columns are therefore read
whenever parts are asked for, and the draw, which costs more, is kept under what they say.
"""

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.sources.cell_split import CellSplit
from xfm.sources.cell_split_parts import RowParts, split_rows
from xfm.sources.census.tables import columns_of


@dataclass(frozen=True, slots=True)
class Strata:
    """N selected cells; equal to others of the same digest."""

    split: CellSplit  # how they are split
    digest: str  # of joinids and columns
    joinids: NDArray[np.int64] = field(compare=False)  # (N,) in any order
    columns: pa.Table = field(compare=False)  # N rows of those that the split reads


def read_strata(obs: Any, split: CellSplit, value_filter: str | None) -> Strata:
    """Reads the columns of the strata of all selected cells; no other.

    Raises:
        Refused: NO_OBS_COLUMN.
    """
    joinids, columns = columns_of(obs, split.columns, value_filter)
    content = hashlib.sha256(np.ascontiguousarray(joinids).tobytes())
    for name in columns.column_names:
        content.update(repr((name, columns[name].to_pylist())).encode())
    return Strata(split, content.hexdigest(), joinids, columns)


@lru_cache(maxsize=4)
def drawn(strata: Strata) -> RowParts:
    """Where each cell stands.

    Raises:
        Refused: as `CellSplit.parts`.
    """
    return split_rows(strata.split, [str(joinid) for joinid in strata.joinids.tolist()], strata.columns)
