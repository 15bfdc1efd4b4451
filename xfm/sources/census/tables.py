"""The two tables of a Census experiment: obs, filtered, cut into shards and split, and var, the genes.

Shards are runs of whole storage tiles, packed until they hold enough cells or enough entries.

A release never changes; a store of one's own may be written again while a process lives. The columns of its strata are
therefore read whenever parts are asked for, and the draw, which costs more, is kept under what they say.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.errors import EnvironmentProblem, Refused, ShardRefused
from xfm.core.random import mix
from xfm.core.source import Shard
from xfm.sources.cell_split import CellSplit, RowParts, split_rows
from xfm.sources.gene_table import identifier_columns, missing

PRIMARY = "is_primary_data"
TILE = 2048  # cells; X is stored in such tiles, and a shard that cuts one makes both of its neighbours read it
ENTRIES_PER_ROW = 4000  # a shard of full-depth cells is cut shorter than one of shallow cells


def obs_types(obs: Any, names: tuple[str, ...], primary_only: bool) -> dict[str, pa.DataType]:
    """Types of the obs columns asked for, categories as strings.

    Raises:
        Refused: NO_OBS_COLUMN or NO_PRIMARY.
    """
    for name in names:
        if name not in obs.schema.names:
            raise Refused("NO_OBS_COLUMN", missing("obs column", name, obs.schema.names))
    if primary_only and PRIMARY not in obs.schema.names:
        raise Refused("NO_PRIMARY", f"obs has no column {PRIMARY}; to read all cells say --no-source.primary-only")
    return {name: _plain_type(obs.schema.field(name).type) for name in names}


def read_obs(
    obs: Any, shard: Shard, types: dict[str, pa.DataType], value_filter: str | None
) -> tuple[NDArray[np.int64], dict[str, pa.Array]]:
    """(R,) ascending joinids of a shard's cells, and their obs columns.

    Raises:
        ShardRefused: ROWS_CHANGED.
    """
    columns = list(dict.fromkeys(["soma_joinid", *types]))
    query = {"coords": (slice(shard.start, shard.stop - 1),), "column_names": columns, "value_filter": value_filter}
    last = obs.domain[0][1]  # a range wholly beyond it is an error to SOMA, not an empty answer
    tables = list(obs.read(**query)) if shard.start <= last else []
    found = sum(table.num_rows for table in tables)
    if found != shard.rows:
        why = f"{shard.rows} rows promised, {found} found. Was the filter or the store changed since listing?"
        raise ShardRefused("ROWS_CHANGED", f"shard {shard.key}: {why}")
    joinids = np.concatenate([table["soma_joinid"].to_numpy() for table in tables])
    order = np.argsort(joinids)
    arrays = {}
    for name, kind in types.items():
        chunks = [chunk.cast(kind) for table in tables for chunk in table[name].chunks]
        arrays[name] = pa.concat_arrays(chunks).take(pa.array(order))
    return joinids[order], arrays


def selected(obs: Any, value_filter: str | None) -> Iterator[pa.Table]:
    """joinid and nnz of the selected cells, in batches."""
    import tiledbsoma

    columns = [name for name in ("soma_joinid", "nnz") if name in obs.schema.names]
    try:
        yield from obs.read(column_names=columns, value_filter=value_filter)
    except tiledbsoma.SOMAError as error:
        try:
            obs.read(coords=(slice(0, 0),), column_names=columns).concat()
        except tiledbsoma.SOMAError as unfiltered:
            raise EnvironmentProblem(f"obs cannot be read, with or without a filter: {unfiltered}") from unfiltered
        reason = str(error).split("\n")[0]
        why = f"{reason}. obs has the columns {', '.join(obs.schema.names)}"
        raise Refused("BAD_FILTER", f"filter {value_filter}: {why}") from error


class Run(NamedTuple):
    """Consecutive tiles: joinids start to stop (half-open), and the selected cells among them."""

    start: int
    stop: int
    rows: int


class Tally:
    """Counts selected cells and their non-zero entries tile by tile, from batches of joinids in any order."""

    def __init__(self, shard_rows: int) -> None:
        self._shard_rows = shard_rows
        self._tile = min(TILE, shard_rows)
        self._rows_of: NDArray[np.int64] = np.zeros(0, np.int64)
        self._entries_of: NDArray[np.int64] = np.zeros(0, np.int64)
        self._sums = [0, 0]
        self.rows = 0  # cells seen

    def add(self, joinids: NDArray[np.int64], nnz: NDArray[np.int64] | None) -> None:
        """Count one batch; `nnz` may be unknown."""
        if len(joinids) == 0:
            return
        tiles = joinids // self._tile
        length = max(len(self._rows_of), int(tiles.max()) + 1)
        entries = np.zeros(len(joinids), np.int64) if nnz is None else nnz.astype(np.int64)
        for name, weights in (("_rows_of", None), ("_entries_of", entries)):
            total = np.bincount(tiles, weights, minlength=length).astype(np.int64)
            total[: len(getattr(self, name))] += getattr(self, name)
            setattr(self, name, total)
        self.rows += len(joinids)
        words = mix(mix(joinids.astype(np.uint64)) + entries.astype(np.uint64))
        for i, salt in enumerate((0, 0x5851F42D4C957F2D)):
            self._sums[i] = (self._sums[i] + int(mix(words ^ np.uint64(salt)).sum(dtype=np.uint64))) % 2**64

    def digest(self) -> str:
        """128 bits over the set of (joinid, nnz) pairs; sums, so that the order of reading does not matter."""
        return "".join(f"{value:016x}" for value in self._sums)

    def runs(self) -> Iterator[Run]:
        """The packed shards, in order of joinids. Empty tiles cost nothing."""
        start = end = rows = entries = 0
        for tile in np.flatnonzero(self._rows_of).tolist():
            more_rows, more_entries = int(self._rows_of[tile]), int(self._entries_of[tile])
            most = self._shard_rows
            if rows and (rows + more_rows > most or entries + more_entries > most * ENTRIES_PER_ROW):
                yield Run(start * self._tile, end * self._tile, rows)
                rows = entries = 0
            if rows == 0:
                start = tile
            end, rows, entries = tile + 1, rows + more_rows, entries + more_entries
        if rows:
            yield Run(start * self._tile, end * self._tile, rows)


def columns_of(obs: Any, names: tuple[str, ...], value_filter: str | None) -> tuple[NDArray[np.int64], pa.Table]:
    """(N,) joinids of all selected cells, in any order, and some obs columns as text.

    Raises:
        Refused: NO_OBS_COLUMN.
    """
    types = obs_types(obs, names, primary_only=False)
    wanted = list(dict.fromkeys(["soma_joinid", *types]))
    found = obs.read(column_names=wanted, value_filter=value_filter).concat()
    columns = {name: found[name].cast(kind).cast(pa.string()) for name, kind in types.items()}
    return found["soma_joinid"].to_numpy(), pa.table(columns)


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
    """Where each cell stands, refused as by `CellSplit.parts`."""
    return split_rows(strata.split, [str(joinid) for joinid in strata.joinids.tolist()], strata.columns)


def about(store: Any) -> dict[str, str]:
    """What census_info/summary says about the build, where there is one."""
    if "census_info" not in store or "summary" not in store["census_info"]:
        return {}
    table = store["census_info"]["summary"].read(column_names=["label", "value"]).concat()
    return dict(zip(table["label"].to_pylist(), table["value"].to_pylist(), strict=True))


def read_genes(var: Any, gene_column: str | None) -> pa.Table:
    """The gene table in the order of X's columns.

    Raises:
        Refused: NO_GENE_COLUMN, or NOT_CENSUS where joinids of var do not run from 0 without gaps.
    """
    text = [field.name for field in var.schema if _plain_type(field.type) == pa.string()]
    names = identifier_columns(text, gene_column)
    if not names:
        raise Refused("NO_GENE_COLUMN", f"no column of var names genes: {', '.join(text)}; set gene_column")
    table = var.read(column_names=["soma_joinid", *names]).concat().sort_by("soma_joinid")
    if not np.array_equal(table["soma_joinid"].to_numpy(), np.arange(table.num_rows)):
        raise Refused("NOT_CENSUS", "joinids of var do not run from 0 without gaps")
    return pa.table({name: table[name].cast(pa.string()).combine_chunks() for name in names})


def _plain_type(kind: pa.DataType) -> pa.DataType:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.string() if pa.types.is_large_string(plain) else plain
