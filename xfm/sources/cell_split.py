"""Which cells are trained on, chosen on and scored, as a column `split` that a source brings.

Donor prediction cannot hold donors out, for each of them must be known: cells are drawn within donors, or whole cell
types are held out. A part is decided by sorted hashes of seed and row id, so that neither the order nor the shards of
the rows matter, and every model and baseline meets exactly the same ones.

    random_cell       drawn from all cells alike: the reference system's 80 / 20, a tenth of the 80 for validation
    stratified_cell   drawn inside each combination of the columns `by`: 70 / 10 / 20
    held_out_types    the test rows are all cells of some types; validation as above, from the rest

In the first two, cells of one library stand on both sides: what they score is in-distribution.

A stratum of n rows gives `n * test` rows to test and `n * validation` to validation, both rounded half up. One too
small for all parts fills training first, then test: at least one row is always trained on, so with 70 / 10 / 20 a
stratum of 1 or 2 rows is training alone, one of 3 or 4 lacks validation rows. So each donor has training rows where
`by` names the donor's column; no rule promises that of random_cell.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from xfm.core.config import Config
from xfm.core.errors import Refused, ShardRefused
from xfm.core.parts import PARTS, TEST, TRAIN, VALIDATION, Part
from xfm.core.random import key64
from xfm.sources.gene_table import missing

SPLIT = "split"  # name of the column
# Validation and test as shares of all rows; with held-out types the former is a share of the rest.
SHARES = {"random_cell": (0.08, 0.2), "stratified_cell": (0.1, 0.2), "held_out_types": (0.1, 0.0)}
I64 = NDArray[np.int64]
Codes = NDArray[np.int8]


class CellSplit(Config):
    """How rows are split. On a command line the scheme alone may stand for it: --source.split random_cell."""

    scheme: Literal["random_cell", "stratified_cell", "held_out_types"] = "stratified_cell"
    """Cells from all alike, cells inside strata, or whole cell types."""
    seed: NonNegativeInt = 0
    """Keys the draw. It is no job's --seed: every seed of a job meets the same rows."""
    validation: float | None = Field(None, ge=0, lt=1)
    """Share of validation rows; by default .08 of random cells, .1 of others. Of held-out types: of the other rows."""
    test: float | None = Field(None, gt=0, lt=1)
    """Share of test rows; by default .2. None of held-out types, which are the test rows."""
    by: tuple[str, ...] = ("donor_id", "cell_type")
    """Columns whose combinations are the strata."""
    type_column: str = "cell_type"
    """Column of the types that are held out."""
    held_out: tuple[str, ...] = ()
    """Types to hold out; where none are named, `n_held_out` are drawn."""
    n_held_out: PositiveInt = 2
    """How many types to draw, where none are named."""

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        return {"scheme": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.scheme == "held_out_types":
            if self.test is not None:
                raise ValueError("with held_out_types the test rows are those of the types; leave out test")
            if self.held_out and self._asks_for("n_held_out"):
                raise ValueError(f"held_out names {len(self.held_out)} types, n_held_out draws {self.n_held_out}; give "
                                 "one of them")  # fmt: skip
        for name in ("held_out", "n_held_out"):
            if self.scheme != "held_out_types" and self._asks_for(name):
                raise ValueError(f"{name} goes with scheme held_out_types, found {self.scheme}")
        if sum(self.shares) >= 1:
            raise ValueError(f"validation {self.shares[0]:g} and test {self.shares[1]:g} leave no training rows")
        if self.scheme != "random_cell" and not self.by:
            raise ValueError("by names no column; scheme random_cell draws without strata")
        return self

    def _asks_for(self, name: str) -> bool:
        """Whether somebody set a field. One that was read back from a record has all of them set: there, if changed."""
        fields = type(self).model_fields
        is_record = self.model_fields_set >= fields.keys()
        return name in self.model_fields_set and not (is_record and getattr(self, name) == fields[name].default)

    def __str__(self) -> str:
        """The scheme, for help texts."""
        return self.scheme

    @property
    def shares(self) -> tuple[float, float]:
        """Of validation and test."""
        validation, test = SHARES[self.scheme]
        return (validation if self.validation is None else self.validation, test if self.test is None else self.test)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that `parts` reads."""
        by = () if self.scheme == "random_cell" else self.by
        held = (self.type_column,) if self.scheme == "held_out_types" else ()
        return tuple(dict.fromkeys((*by, *held)))

    def parts(self, row_ids: Sequence[str], columns: pa.Table) -> Codes:
        """(N,) TRAIN, VALIDATION or TEST, whatever the order of the rows.

        Args:
            columns: N rows; those of `columns` are read, and a missing value is a stratum of its own.

        Raises:
            Refused: NO_COLUMN, DUPLICATE_ROWS, NO_TYPE, TOO_FEW_TYPES, NO_TRAINING_ROWS, or NO_ROWS for a part that is
                asked for and empty.
        """
        for name in self.columns:
            if name not in columns.column_names:
                message = missing("column", name, columns.column_names)
                raise Refused("NO_COLUMN", f"split {self.scheme} needs {', '.join(self.columns)}: {message}")
        if (different := len(set(row_ids))) != len(row_ids):
            raise Refused("DUPLICATE_ROWS", f"{len(row_ids):,} rows have {different:,} row ids: they cannot be split")
        keys = np.fromiter((key64(self.seed, f"cell_split\x1f{row}") for row in row_ids), np.uint64, len(row_ids))
        parts = np.full(len(row_ids), TRAIN, np.int8)
        left = np.ones(len(row_ids), np.bool_)
        strata = np.zeros(len(row_ids), np.int64)
        if self.scheme != "random_cell":
            numbers: dict[tuple[str | None, ...], int] = {}  # of each combination of values
            every = zip(*(_values(columns, name) for name in self.by), strict=True)
            strata = np.array([numbers.setdefault(each, len(numbers)) for each in every], np.int64)
        if self.scheme == "held_out_types":
            held = self._held_out(columns)
            parts[held], left = TEST, ~held
        parts[left] = draw(strata[left], keys[left], *self.shares)
        counts = np.bincount(parts, minlength=len(Part))
        wanted = (True, self.shares[0] > 0, True)
        if empty := [part.word for part, asked in zip(PARTS, wanted, strict=True) if asked and not counts[part]]:
            raise Refused("NO_ROWS", f"split {self.scheme} of {len(parts):,} rows leaves no {empty[0]} row: the "
                          "strata are too small for these shares; give larger ones, or fewer columns by")  # fmt: skip
        return parts

    def _held_out(self, columns: pa.Table) -> NDArray[np.bool_]:
        """(N,) whether a row is of a held-out type. Types that no donor could do without are not drawn."""
        types = _values(columns, self.type_column)
        known = sorted({value for value in types if value is not None})
        others = {name: _values(columns, name) for name in self.by if name != self.type_column}
        if unknown := [name for name in self.held_out if name not in known]:
            raise Refused("NO_TYPE", f"held_out: {missing(self.type_column, unknown[0], known)}")
        held = np.isin(types, self.held_out)
        if self.held_out:
            if stripped := _stripped(held, others):
                raise Refused("NO_TRAINING_ROWS", f"without {', '.join(self.held_out)} no training row is left of "
                              f"{stripped}; hold out fewer types, or others")  # fmt: skip
            return held
        chosen: list[str] = []
        for name in sorted(known, key=lambda name: key64(self.seed, f"held_out\x1f{name}")):
            wider = held | (types == name)
            if len(chosen) < self.n_held_out and not wider.all() and not _stripped(wider, others):
                chosen, held = [*chosen, name], wider
        if len(chosen) < self.n_held_out:
            raise Refused("TOO_FEW_TYPES", f"{self.n_held_out} of {len(known)} types ({', '.join(known[:6])}) were to "
                          f"be held out; {len(chosen)} can be, with training rows left of every value of "
                          f"{', '.join(others) or self.type_column}")  # fmt: skip
        return held


def draw(strata: I64, keys: NDArray[np.uint64], validation: float, test: float) -> Codes:
    """(N,) TRAIN, VALIDATION or TEST: exact quotas inside each stratum.

    Args:
        strata: (N,) number of each row's stratum.
        keys: (N,) words that order the rows of a stratum.
        validation, test: shares.
    """
    order = np.lexsort((keys, strata))
    _, start, sizes = np.unique(strata[order], return_index=True, return_counts=True)
    n_test = np.minimum(_rounded(sizes * test), sizes - 1)
    n_validation = np.minimum(_rounded(sizes * validation), sizes - 1 - n_test)
    place = np.arange(len(order)) - np.repeat(start, sizes)
    first, second = np.repeat(n_test, sizes), np.repeat(n_test + n_validation, sizes)
    parts = np.empty(len(order), np.int8)
    parts[order] = np.where(place < first, TEST, np.where(place < second, VALIDATION, TRAIN))
    return parts


def digest_of(row_ids: Sequence[str], parts: Codes) -> str:
    """SHA-256 over (row id, part) in the order of the ids."""
    lines = sorted(f"{row}\x1f{Part(part).word}" for row, part in zip(row_ids, parts.tolist(), strict=True))
    return f"sha256:{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"


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
    """Splits all rows of a source, refused as by `CellSplit.parts`."""
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
    """Raises Refused: NO_SPLIT, a column `split` is asked for that nobody brings."""
    if split is None and SPLIT in obs and SPLIT not in known:
        raise Refused("NO_SPLIT", f"the data have no column {SPLIT!r}; --source.split stratified_cell draws one "
                      "(random_cell, held_out_types)")  # fmt: skip


def _keys(row_ids: Sequence[str]) -> NDArray[np.uint64]:
    return np.fromiter((key64(0, row) for row in row_ids), np.uint64, len(row_ids))


def _rounded(quota: NDArray[Any]) -> I64:
    # 15 * .1 may fall short of 1.5 by its last digit.
    return np.floor(quota + 0.5 + 1e-9).astype(np.int64)


def _values(columns: pa.Table, name: str) -> NDArray[np.object_]:
    """(N,) strings, None where there is none."""
    column = columns[name]
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    values = np.empty(len(column), dtype=object)
    values[:] = column.cast(kind).cast(pa.string()).to_pylist()
    return values


def _stripped(held: NDArray[np.bool_], others: dict[str, NDArray[np.object_]]) -> str:
    """A value of another column all of whose rows are held out, as "donor_id 'd1'"; empty where there is none."""
    for name, values in others.items():
        if gone := {value for value in values if value is not None} - set(values[~held]):
            return f"{name} {min(gone)!r}"
    return "" if not held.all() else "anything"
