"""The rows that are trained on and judged: their labels, their parts, and copies among them.

A row whose content (tokens and values, the encoded picture, or the embedding) is that of another is a copy of it: words
beside an embedding are no part of it, and one vector under two cell types counts as a copy, as it does where stored
vectors are judged. A test row with a copy in training is answered by heart; where every test row is one, the two are
the same data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from xfm.core.errors import Refused
from xfm.core.parts import LEFT_OUT, PARTS, TEST, TRAIN, VALIDATION, Part
from xfm.core.schema import EMBEDDING, IMAGE, INPUT_IDS, PART, ROW_ID, VALUES
from xfm.judging.eval_set import MISSING, EvalSet, Labels, classes_of, group_keys, labels_of
from xfm.judging.row_noun import ROWS
from xfm.judging.split import Split, straddling
from xfm.tokenizers.embedding import vectors_of
from xfm.tokenizers.ragged import ragged
from xfm.training.tokens import SplitRows, TokenStore

CONTENT = "content"  # int64 digest of a row's tokens and values, picture or embedding
SEEN = (INPUT_IDS, VALUES, IMAGE, EMBEDDING)
FEW = 100  # test rows: the interval of an accuracy is then some ten points wide to either side


class SplitWithContent(SplitRows):
    """As `SplitRows`, with the column CONTENT."""

    def __call__(self, rows: pa.Table) -> pa.Table:
        """N rows to the same rows in the order of PART."""
        return super().__call__(rows.append_column(CONTENT, pa.array(content_of(rows), pa.int64())))


def content_of(rows: pa.Table) -> NDArray[np.int64]:
    """(N,) digests of what is measured of each row; of a fusion the vector, whatever words stand beside it."""
    table = rows.combine_chunks()
    columns = [_bytes_of(table[name].chunk(0)) for name in SEEN if name in table.column_names and table.num_rows]
    words = [
        int.from_bytes(blake2b(b"\x1f".join(row), digest_size=8).digest(), "little", signed=True)
        for row in zip(*columns, strict=True)
    ]
    return np.array(words, np.int64)


def _bytes_of(column: pa.Array) -> list[bytes]:
    if pa.types.is_fixed_size_list(column.type):
        return [vector.tobytes() for vector in vectors_of(column)]
    if not pa.types.is_large_list(column.type):
        return [bytes(value) for value in column.to_pylist()]
    offsets, flat = ragged(column)
    return [flat[start:stop].tobytes() for start, stop in pairwise(offsets.tolist())]


@dataclass(frozen=True, slots=True)
class JudgedRows:
    """What the driver knows of all rows, in the order of the store; see `training.task.TaskRows`."""

    judged: EvalSet  # rows, what is learned of them, the split, what keys the resamples
    warnings: tuple[str, ...]  # what a reader must know of the data

    def settled(self) -> dict[str, Any]:
        """Digests of cells and split, and what rows are called."""
        return self.judged.settled()

    def label_digests(self) -> dict[str, str]:
        """{column: SHA-256 over the rows that have a part and a value, and it}."""
        return self.judged.label_digests()


class Labelled(JudgedRows):
    """Rows with a class."""

    __slots__ = ()

    @property
    def label(self) -> Labels:
        """The label that is learned."""
        return self.judged.labels[0]

    def also_read(self, name: str | None) -> Labels | None:
        """Another column that the task reads; None where none is named."""
        return next((each for each in self.judged.labels if each.name == name), None)

    def held(self, part: Part) -> NDArray[np.int64]:
        """Positions of the rows of a part that have a class."""
        return np.flatnonzero((self.judged.split.parts == part) & (self.label.codes != MISSING))


def labelled_rows(
    store: TokenStore,
    label: str,
    group: str | None,
    *,
    seed: int,
    resamples: int,
    noun: str = ROWS,
    also_read: Sequence[str] = (),
    has_test: bool = True,
) -> Labelled:
    """Reads ids, labels and parts; no tokens.

    Args:
        group: column whose values are drawn together in resamples, or None for single rows.
        also_read: other columns that the task reads as classes; one with a single class is no error.
        has_test: False where no test rows are stored, as in a search.

    Raises:
        Refused: NUMERIC_LABEL, ONE_CLASS, TRAIN_IS_TEST, or NO_ROWS for a part without any.
    """
    judged = judged_rows(store, label, group, also_read, seed=seed, resamples=resamples, noun=noun)
    copies = stored_copies(store)
    labelled = Labelled(judged, tuple(_warnings(judged, copies, group)))
    _check(labelled, copies, has_test=has_test)
    return labelled


def judged_rows(
    store: TokenStore, label: str, group: str | None, also_read: Sequence[str], *, seed: int, resamples: int, noun: str
) -> EvalSet:
    """Ids, labels, parts and groups of the stored rows. Arguments as for `labelled_rows`.

    Raises:
        Refused: NUMERIC_LABEL or ONE_CLASS.
    """
    row_ids, split = stored_split(store, group)
    found = _labels(together(store, label), label)
    others = [classes_of(together(store, name), name) for name in also_read if name != label]
    return EvalSet(
        np.arange(len(row_ids)), tuple(row_ids), (found, *others), split, seed=seed, resamples=resamples, noun=noun
    )


def stored_split(store: TokenStore, group: str | None) -> tuple[list[str], Split]:
    """Ids, parts and groups of the stored rows, in the order of the store."""
    row_ids = together(store, ROW_ID).to_pylist()
    parts = together(store, PART).to_numpy()
    names = row_ids if group is None else group_keys(together(store, group).to_pylist(), row_ids)
    _, groups = np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)
    return row_ids, Split(parts, groups.astype(np.int64))


def stored_copies(store: TokenStore) -> NDArray[np.int64]:
    """(N,) the same number for rows of the same content."""
    return np.unique(together(store, CONTENT).to_numpy(), return_inverse=True)[1].astype(np.int64)


def _labels(column: pa.ChunkedArray, name: str) -> Labels:
    try:
        return labels_of(column, name, 1, "--task.label")
    except Refused as problem:
        if problem.code != "ONE_CLASS":
            raise
        found = ", ".join(str(value) for value in pc.unique(column).to_pylist()[:6])
        message = f"--task.label {name}: two classes are needed, found {found}; name another column"
        raise Refused("ONE_CLASS", message) from None


def codes_of(column: pa.ChunkedArray | pa.Array, classes: Sequence[str]) -> NDArray[np.int64]:
    """(N,) numbers of classes, MISSING for what is none of them."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    words = column.cast(kind).cast(pa.string())
    found = pc.fill_null(pc.index_in(words, pa.array(classes, pa.string())), MISSING)
    codes: NDArray[np.int64] = np.asarray(found.to_numpy(zero_copy_only=False), np.int64).reshape(-1)
    return codes


def together(store: TokenStore, name: str) -> pa.ChunkedArray:
    """One column of all stored rows."""
    columns = store.column(name)
    return pa.chunked_array([chunk for column in columns for chunk in column.chunks], columns[0].type)


def _check(labelled: Labelled, copies: NDArray[np.integer], *, has_test: bool) -> None:
    judged = labelled.judged
    for part, flag in ((TRAIN, ""), (VALIDATION, "; give a share of the training rows with --validation"), (TEST, "")):
        if not len(labelled.held(part)) and (has_test or part != TEST):
            raise Refused("NO_ROWS", f"no {part.word} row has a {labelled.label.name}{flag}")
    train, test = (labelled.held(part) for part in (TRAIN, TEST))
    if len(np.unique(labelled.label.codes[train])) < 2:
        (only,) = np.unique(labelled.label.codes[train])
        raise Refused("ONE_CLASS", f"all training {judged.noun} are of the class {labelled.label.classes[only]!r}")
    if has_test:
        check_copies(train, test, copies, judged.noun)


def check_copies(train: NDArray[np.int64], test: NDArray[np.int64], copies: NDArray[np.integer], noun: str) -> None:
    """Refuses test rows all of which are trained on: positions of both, and (N,) which rows are alike.

    Raises:
        Refused: TRAIN_IS_TEST.
    """
    if np.isin(copies[test], copies[train]).all():
        raise Refused(
            "TRAIN_IS_TEST",
            f"each of the {len(test):,} test {noun} is among the training {noun}: nothing would be learned of new "
            "ones. Name other rows with --split, or leave it out to draw a split",
        )


def leaks(split: Split, copies: NDArray[np.int64], group: str | None, noun: str) -> list[str]:
    """Warnings of test rows whose copy, or whose group, is trained on."""
    found: list[str] = []
    if leaked := straddling(split.parts, copies):
        found.append(f"{leaked:,} test {noun} have an exact copy in training: the test scores are flattered by them.")
    if group is not None and (shared := straddling(split.parts, split.groups)):
        found.append(f"{shared:,} test {noun} share their {group} with training {noun}.")
    return found


def _warnings(judged: EvalSet, copies: NDArray[np.int64], group: str | None) -> list[str]:
    label, parts, noun = judged.labels[0], judged.split.parts, judged.noun
    found = leaks(judged.split, copies, group, noun)
    counts = [np.bincount(label.codes[(parts == part) & (label.codes != MISSING)], minlength=len(label.classes))
              for part in PARTS]  # fmt: skip
    if unseen := [label.classes[code] for code in np.flatnonzero((counts[TRAIN] == 0) & (counts[TEST] > 0))]:
        found.append(f"No training {noun} of {_listed(unseen)}: what is of these classes is always mistaken.")
    if untested := [label.classes[code] for code in np.flatnonzero(counts[TEST] == 0)]:
        found.append(f"No test {noun} of {_listed(untested)}: the scores say nothing of these classes.")
    if 0 < counts[TEST].sum() < FEW:
        found.append(f"Only {counts[TEST].sum():,} test {noun}: the intervals are wide.")
    if label.missing:
        found.append(f"{label.missing:,} {noun} have no {label.name} and were left out.")
    if left_out := int((parts == LEFT_OUT).sum()):
        found.append(f"{left_out:,} {noun} belong to no part and were left out.")
    return found


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
