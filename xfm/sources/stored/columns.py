"""What stored embeddings offer, whatever they are stored in: named columns of vectors, read one at a time.

The object is a recipe of names and numbers that pickles; files are opened by each read and closed after it.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.errors import Refused
from xfm.core.schema import layer_column
from xfm.sources.gene_table import missing

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

LAYER = re.compile(r"(?P<pool>.+)_l(?P<layer>\d{2,})")
_SHOWN = 3  # rows in a message


@dataclass(frozen=True, slots=True)
class Column:
    """One vector per row."""

    name: str  # what `read` takes: `layer_column(pool, layer)` for a layer, else the stored name
    pool: str | None  # pool, layer: of a layer; None for anything else (`X_pca`)
    layer: int | None
    dim: int  # numbers in a vector
    key: str  # what it is called where it is stored: `cls_l07` in an OUTPUT, `X_scgpt_cls_l07` in an AnnData


@dataclass(frozen=True)
class StoredEmbeddings(ABC):
    """Embeddings of N rows."""

    place: str  # where they are, for messages
    columns: tuple[Column, ...]  # what there is, in stored order
    rows: int  # N

    @abstractmethod
    def row_ids(self) -> list[str]:
        """Name of each row, in stored order.

        Raises:
            Refused: DUPLICATE_ROWS.
        """

    @abstractmethod
    def obs_names(self) -> list[str]:
        """Names of the obs columns."""

    @abstractmethod
    def obs(self, names: Sequence[str]) -> pa.Table:
        """Obs columns of all rows, in the order asked for.

        Raises:
            Refused: NO_COLUMN.
        """

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Digest of what is stored. Part of the fingerprint of what is computed from it."""

    @abstractmethod
    def origin(self) -> dict[str, Any] | None:
        """run.json of the job that made them, None where it is not known."""

    @abstractmethod
    def _pieces(self) -> Sequence[tuple[int, int]]:
        """Ranges of rows that are loaded together: rising, without gaps, from 0 to N."""

    @abstractmethod
    def _load(self, piece: int, keys: Sequence[str]) -> dict[str, F32]:
        """{key: (n, D)} of all n rows of one piece."""

    def is_finished(self) -> bool:
        """Whether the job that wrote them came to its end; always, where no job is known."""
        return True

    def column(self, name: str) -> Column:
        """The column called `name`, or stored under that key.

        Raises:
            Refused: NO_COLUMN.
        """
        if found := [column for column in self.columns if name in (column.name, column.key)]:
            return found[0]
        known = [column.name for column in self.columns]
        raise Refused("NO_COLUMN", f"{self.place}: {missing('embedding', name, known)}")

    def pools(self) -> dict[str, tuple[int, ...]]:
        """Layer numbers by pooling."""
        found: dict[str, list[int]] = {}
        for column in self.columns:
            if column.pool is not None and column.layer is not None:
                found.setdefault(column.pool, []).append(column.layer)
        return {pool: tuple(sorted(layers)) for pool, layers in found.items()}

    def read(self, column: str, rows: I64 | None = None, *, finite: bool = True) -> F32:
        """One column as (n, D); memory is the result and one piece of what is stored.

        Args:
            rows: positions to keep, strictly rising; None for all.
            finite: refuse numbers that are not finite; else they are given as they are.

        Raises:
            Refused: NO_COLUMN, NOT_FINITE, or what is stored is damaged.
        """
        n = self.rows if rows is None else len(rows)
        out = np.empty((n, self.column(column).dim), np.float32)
        for positions, block in self.blocks([column], rows, finite=finite):
            out[positions] = block[column]
        return out

    def blocks(
        self, columns: Sequence[str], rows: I64 | None = None, *, finite: bool = True
    ) -> Iterator[tuple[I64, dict[str, F32]]]:
        """Several columns, piece after piece; `rows`, `finite` and what is refused as in `read`.

        Yields:
            Positions in what `read(column, rows)` returns, and {column: (n, D)} of these rows.
        """
        found = [self.column(name) for name in columns]
        wanted = np.arange(self.rows) if rows is None else np.asarray(rows, np.int64)
        if len(wanted) and (wanted[0] < 0 or wanted[-1] >= self.rows or (np.diff(wanted) <= 0).any()):
            raise ValueError(f"rows must rise strictly from 0 to at most {self.rows - 1}")
        for number, (start, stop) in enumerate(self._pieces()):
            low, high = np.searchsorted(wanted, (start, stop))
            if low == high:
                continue
            loaded = self._load(number, [column.key for column in found])
            block = {}
            for name, column in zip(columns, found, strict=True):
                values = loaded[column.key]
                block[name] = values if high - low == stop - start else values[wanted[low:high] - start]
                if finite and not np.isfinite(block[name]).all():
                    self._refuse_not_finite(column, wanted)
            yield np.arange(low, high), block

    def _refuse_not_finite(self, column: Column, wanted: I64) -> None:
        """Looks at every row again, to say how many there are and which."""
        is_bad = np.zeros(self.rows, dtype=bool)
        for number, (start, stop) in enumerate(self._pieces()):
            is_bad[start:stop] = ~np.isfinite(self._load(number, [column.key])[column.key]).all(axis=1)
        bad, ids = wanted[is_bad[wanted]], self.row_ids()
        shown = ", ".join(ids[row] for row in bad[:_SHOWN]) + (", ..." if len(bad) > _SHOWN else "")
        where = f"{column.key} of {self.place} is not finite in {len(bad):,} of {len(wanted):,} rows: {shown}"
        raise Refused("NOT_FINITE", f"{where}. Leave that column out, or store these rows without it")


def check_unique(ids: Sequence[str], place: str, hint: str) -> None:
    """Raises Refused: DUPLICATE_ROWS, row ids that repeat."""
    if (different := len(set(ids))) != len(ids):
        seen: set[str] = set()
        repeated = next(row for row in ids if row in seen or seen.add(row))  # type: ignore[func-returns-value]
        why = f"has {len(ids):,} rows but {different:,} row ids, {repeated!r} twice"
        raise Refused("DUPLICATE_ROWS", f"{place} {why}; {hint}")


def layer_columns(widths: Mapping[str, int], backbones: Collection[str]) -> tuple[Column, ...]:
    """Columns from their stored names.

    `cls_l07` is a layer; so is `X_scgpt_cls_l07`, whose pool is `cls` where all layers are of one backbone and
    `scgpt_cls` where they are of several.

    Args:
        widths: numbers in a vector, by stored name.
        backbones: those known to have made them; of other names the last word is the pool.
    """
    parts = {key: _parts(match["pool"], backbones) for key in widths if (match := LAYER.fullmatch(key))}
    several = len({model for model, _ in parts.values()}) > 1
    columns: dict[str, Column] = {}
    for key, dim in widths.items():
        column = Column(key, None, None, dim, key)
        if match := LAYER.fullmatch(key):
            model, pool = parts[key]
            pool, layer = f"{model}_{pool}" if several and model else pool, int(match["layer"])
            name = layer_column(pool, layer)
            # A stored name is never taken by another column: X_cls_l07 beside cls_l07 is just a matrix.
            if name not in columns and (name == key or name not in widths):
                column = Column(name, pool, layer, dim, key)
        columns[column.name] = column
    return tuple(columns.values())


def _parts(text: str, backbones: Collection[str]) -> tuple[str, str]:
    """`X_scgpt_cls` to ("scgpt", "cls"); `cls` to ("", "cls")."""
    if not text.startswith("X_"):
        return "", text
    text = text.removeprefix("X_")
    model = next((each for each in backbones if text.startswith(f"{each}_")), text.rpartition("_")[0])
    return model, text.removeprefix(model).removeprefix("_")
