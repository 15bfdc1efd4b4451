"""What every representation is judged on: the same cells, labels, split and resamples for each.

Built once on the driver from stored obs columns, then sent to every worker.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.errors import Refused
from xfm.core.parts import LEFT_OUT, TEST, Part
from xfm.core.random import key64
from xfm.judging.row_noun import ROWS
from xfm.judging.split import Split

MISSING = -1
# Words that stand for "not known" in public data sets (CELLxGENE schema 7: "unknown", "na").
UNKNOWN = frozenset({"", "na", "n/a", "nan", "unknown"})
MOST_CLASSES = 500

I32 = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Labels:
    """One obs column as numbers."""

    name: str  # of the column
    codes: I32  # (N,) index into `classes`, MISSING where the cell has none or its class is too small
    classes: tuple[str, ...]  # in the order of their names
    left_out: dict[str, int] = field(default_factory=dict)  # cells by class that is too small to judge
    missing: int = 0  # cells without a value

    def words(self, unknown: str = "unknown") -> list[str]:
        """The class of each cell by name."""
        return [unknown if code == MISSING else self.classes[code] for code in self.codes]


@dataclass(frozen=True, slots=True)
class Targets:
    """One obs column as numbers that are to be predicted."""

    name: str  # of the column
    values: NDArray[np.float64]  # (N,) NaN where the cell has none
    missing: int = 0  # cells without a value
    odd: int = 0  # cells whose value is no number
    example: str = ""  # one of these values; empty where there is none


@dataclass(frozen=True, slots=True)
class EvalSet:
    """The N cells and how they are judged."""

    rows: NDArray[np.int64]  # (N,) their positions in the stored embeddings, rising
    row_ids: tuple[str, ...]  # their names
    labels: tuple[Labels, ...]  # what is to be read from a representation
    split: Split  # train, validation and test
    batch: Labels | None = None  # technical origin, to be mixed; None where none was named
    # time, time_name: (N,) NaN where unknown, None where no column was named; and what the column is called
    time: NDArray[np.float64] | None = None
    time_name: str = "time"
    depth: NDArray[np.float64] | None = None  # (N,) total counts; None where expression is not at hand
    roots: NDArray[np.bool_] | None = None  # (N,) where pseudotime may begin; None for the cells of the earliest time
    seed: int = 0  # keys the resamples
    resamples: int = 2000  # bootstrap resamples of groups
    k: int = 15  # neighbours of the kNN classifier; the graph that is clustered has 15, as everywhere
    noun: str = ROWS  # what rows are called: cells, sentences, images
    # the set that a row belongs to (its data set): a choice among the classes of one set is judged too
    within: Labels | None = None
    # what a representation should not tell; how well it does is measured on unseen classes of the first label. Both are
    # None where no column was named.
    attribute: Labels | None = None
    targets: tuple[Targets, ...] = ()  # numbers that are to be predicted

    def test_cells(self, label: Labels) -> NDArray[np.int64]:
        """Positions of the test cells that have a class; in their order stand the predictions of a probe."""
        return np.flatnonzero((label.codes != MISSING) & (self.split.parts == TEST))

    def with_target(self, target: Targets, part: Part) -> NDArray[np.int64]:
        """Positions of the cells of a part that have a number to predict."""
        return np.flatnonzero(np.isfinite(target.values) & (self.split.parts == part))

    def cells_digest(self) -> str:
        """SHA-256 over cells and their labels, in the order of their names: what two runs of this recipe must share."""
        columns = [label.codes.tolist() for label in self.labels]
        columns += [self.batch.codes.tolist()] if self.batch is not None else []
        columns += [self.time.tolist()] if self.time is not None else []
        beside = [label for label in (self.within, self.attribute) if label is not None]
        columns += [label.codes.tolist() for label in beside]
        columns += [target.values.tolist() for target in self.targets]
        named = [
            (label.name, label.classes) for label in (*self.labels, *([self.batch] if self.batch else []), *beside)
        ]
        named += [(target.name, ()) for target in self.targets]
        return _digest(named, self.row_ids, columns)

    def settled(self) -> dict[str, Any]:
        """Digests of cells and split, and what rows are called: what the recipe of a run says of them."""
        return {"cells": self.cells_digest(), "split": self.split_digest(), "noun": self.noun}

    def label_digests(self) -> dict[str, str]:
        """{label: SHA-256 over the rows that have a part and a class, and it}: what two models must share."""
        measured = (*self.labels, *([self.attribute] if self.attribute is not None else []))
        return {label.name: self._label_digest(label) for label in measured} | {
            target.name: self._target_digest(target) for target in self.targets
        }

    def _label_digest(self, label: Labels) -> str:
        held = np.flatnonzero((label.codes != MISSING) & (self.split.parts != LEFT_OUT))
        row_ids = [self.row_ids[row] for row in held]
        return _digest([label.name, label.classes], row_ids, [label.codes[held].tolist()])

    def _target_digest(self, target: Targets) -> str:
        held = np.flatnonzero(np.isfinite(target.values) & (self.split.parts != LEFT_OUT))
        return _digest([target.name], [self.row_ids[row] for row in held], [target.values[held].tolist()])

    def split_digest(self) -> str:
        """SHA-256 over where each cell stands, what test cells are drawn with, and what keys the resamples.

        Where it is alike, draws may be subtracted: the n-th resample of both holds the same test cells.
        """
        parts = self.split.parts
        test, drawn_as = self.split.where(TEST), np.full(len(self.row_ids), -1)
        drawn_as[test] = np.unique(self.split.groups[test], return_inverse=True)[1]
        # Digests of earlier runs hold -1 for a row that is left out.
        held = np.where(parts == LEFT_OUT, -1, parts)
        return _digest([self.seed, self.resamples], self.row_ids, [held.tolist(), drawn_as.tolist()])


def _digest(head: Any, row_ids: Sequence[str], columns: Sequence[Sequence[Any]]) -> str:
    content = hashlib.sha256(repr(head).encode())
    for row in sorted(zip(row_ids, *columns, strict=True), key=lambda row: row[0]):
        content.update(repr(row).encode())
    return content.hexdigest()


def is_unknown(value: Any) -> bool:
    """Whether a value of an obs column says nothing."""
    return value is None or value != value or str(value).strip().lower() in UNKNOWN


def group_keys(values: Sequence[Any], row_ids: Sequence[str]) -> list[str]:
    """What each row is drawn and resampled with: the group it is of, or where that is not known itself."""
    return [
        f"row\x1f{row}" if is_unknown(value) else f"group\x1f{value}"
        for value, row in zip(values, row_ids, strict=True)
    ]


def sample_rows(row_ids: Sequence[str], most: int) -> NDArray[np.int64]:
    """Positions of at most `most` rows in rising order, by a draw that knows row ids only: no seed changes it."""
    if len(row_ids) <= most:
        return np.arange(len(row_ids))
    words = np.fromiter((key64(0, f"cells\x1f{row}") for row in row_ids), np.uint64, len(row_ids))
    return np.sort(np.argsort(words, kind="stable")[:most])


def labels_of(column: pa.ChunkedArray | pa.Array, name: str, least: int, flag: str = "--labels") -> Labels:
    """An obs column as classes.

    Args:
        column: text, category, boolean or integers.
        least: cells a class needs; smaller ones are left out and counted.

    Raises:
        Refused: NUMERIC_LABEL for measurements, ONE_CLASS where there is nothing to tell apart.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_floating(kind) or pa.types.is_temporal(kind) or pa.types.is_nested(kind):
        raise Refused(
            "NUMERIC_LABEL",
            f"{flag} {name}: the column holds {kind}, a measurement and no class. Give a column of names, use it as "
            "--time, or predict it: jobs/evaluate.py --targets, jobs/finetune.py --task.kind regression",
        )
    values = column.cast(kind).cast(pa.string()).to_pylist()
    known = [None if value is None or value.strip().lower() in UNKNOWN else value for value in values]
    sizes: dict[str, int] = {}
    for value in known:
        if value is not None:
            sizes[value] = sizes.get(value, 0) + 1
    classes = tuple(sorted(value for value, size in sizes.items() if size >= least))
    if len(classes) < 2:
        shown = ", ".join(f"{value} ({size})" for value, size in sorted(sizes.items())[:6])
        raise Refused(
            "ONE_CLASS",
            f"{flag} {name}: needs two classes of at least {least} rows, found {shown or 'no value at all'}. Lower "
            "--min_class or name another column",
        )
    if len(classes) > MOST_CLASSES:
        raise Refused(
            "TOO_MANY_CLASSES",
            f"{flag} {name}: {len(classes):,} classes, at most {MOST_CLASSES} can be judged: is it an id?",
        )
    code = {value: number for number, value in enumerate(classes)}
    codes = np.array([MISSING if value is None else code.get(value, MISSING) for value in known], np.int32)
    left_out = {value: size for value, size in sorted(sizes.items()) if value not in code}
    return Labels(name, codes, classes, left_out, sum(value is None for value in known))


def classes_of(column: pa.ChunkedArray | pa.Array, name: str, flag: str = "--labels") -> Labels:
    """As `labels_of` with the smallest classes kept, for a column that may say the same of every row, or nothing.

    Raises:
        Refused: NUMERIC_LABEL or TOO_MANY_CLASSES.
    """
    try:
        return labels_of(column, name, 1, flag)
    except Refused as problem:
        if problem.code != "ONE_CLASS":
            raise
    words = [None if is_unknown(word) else str(word) for word in column.to_pylist()]
    classes = tuple(sorted({word for word in words if word is not None}))
    codes = np.array([MISSING if word is None else classes.index(word) for word in words], np.int32)
    return Labels(name, codes, classes, {}, words.count(None))


def times_of(column: pa.ChunkedArray | pa.Array, name: str) -> NDArray[np.float64]:
    """An obs column as numbers, NaN where it has none; text such as "day 3" must be made a number before.

    Raises:
        Refused: NO_TIME.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    try:
        times = np.asarray(column.cast(kind).cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        found = next((value for value in column.to_pylist() if value is not None), None)
        raise Refused("NO_TIME", f"--time {name}: expected numbers, found {found!r}") from None
    if len(np.unique(times[np.isfinite(times)])) < 2:
        raise Refused("NO_TIME", f"--time {name}: needs at least two different times")
    return times
