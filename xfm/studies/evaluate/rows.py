"""Which rows an evaluation judges, and where each of them stands: labels, groups, copies, the split."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.errors import Refused
from xfm.core.parts import PARTS, VALIDATION, Part
from xfm.judging.copies import same_vectors
from xfm.judging.eval_set import EvalSet, Labels, classes_of, group_keys, is_unknown, labels_of, sample_rows, times_of
from xfm.judging.split import Split, is_stated, split_as_given, split_cells, straddling
from xfm.judging.targets import check_targets, targets_of
from xfm.sources.stored.columns import StoredEmbeddings
from xfm.studies.evaluate.question import Question

Pools = dict[str, list[int]]
I64 = NDArray[np.int64]


class EvaluatedRows(NamedTuple):
    """What is judged."""

    judged: EvalSet
    warnings: list[str]  # what the reader must know of it
    # settings that drew nothing, because the data come split: they part no run from another, and where each row stands
    # is in recipe.split
    unused: frozenset[str] = frozenset()


def judged_rows(stored: StoredEmbeddings, pools: Pools, noun: str, question: Question) -> EvaluatedRows:
    """The rows to judge.

    Raises:
        Refused: no such column or label; a target that is no number; a split that cannot be drawn, or is not one.
    """
    every, warnings = stored.row_ids(), []
    stated = _stated(stored, question)
    known = np.arange(len(every)) if stated is None else np.flatnonzero([value is not None for value in stated])
    if len(known) < len(every):
        warnings.append(f"{len(every) - len(known):,} {noun} have no {question.split} and are left out.")
    rows = known[sample_rows([every[row] for row in known], question.cells)]
    if len(rows) < len(known):
        warnings.append(f"{len(rows):,} of {len(known):,} {noun} are judged, by a keyed draw (--cells).")
    obs = stored.obs(question.columns).take(rows)
    row_ids = tuple(str(every[row]) for row in rows)
    labels = tuple(labels_of(obs[name], name, question.min_class) for name in question.labels)
    if not stored.is_finished():
        warnings.append(
            f"The job that wrote {stored.place} has not finished: only its {stored.rows:,} rows are judged."
        )
    copies, unused = _copies(stored, pools, rows), frozenset[str]()
    keys = _keys(obs, row_ids, noun, question, warnings)
    if stated is None:
        split = split_cells(keys, copies, question.seed, question.validation, question.test)
        if n_copies := len(copies) - len(np.unique(copies)):
            warnings.append(f"{n_copies:,} {noun} are copies of another one; copies stand on one side of the split.")
    else:
        values = [stated[row] for row in rows]
        split = _given(values, keys, copies, noun, question, warnings)
        unused = frozenset(("test", "validation") if is_stated(values, VALIDATION) else ("test",))
    for label in labels:
        counts = np.bincount(split.parts[label.codes >= 0], minlength=len(Part))
        if empty := [part.word for part in PARTS if not counts[part]]:
            raise Refused("EMPTY_PART", f"--labels {label.name}: none of the {empty[0]} {noun} has one of its classes; "
                          "try another --seed, --group, --split or larger shares")  # fmt: skip
    targets = tuple(targets_of(obs[name], name) for name in question.targets)
    judged = EvalSet(
        rows=rows, row_ids=row_ids, labels=labels, split=split,
        batch=labels_of(obs[question.batch], question.batch, 1, "--batch") if question.batch else None,
        within=_beside(obs, question.within, "--within", warnings),
        attribute=_beside(obs, question.leakage, "--leakage", warnings),
        time=times_of(obs[question.time], question.time) if question.time else None, time_name=question.time or "",
        roots=_roots(obs, question), targets=targets, seed=question.seed,
        resamples=question.resamples, k=question.k, noun=noun,
    )  # fmt: skip
    for target in judged.targets:
        check_targets(judged, target)
    return EvaluatedRows(judged, warnings, unused)


def _beside(obs: pa.Table, name: str | None, flag: str, warnings: list[str]) -> Labels | None:
    """A column that scores are taken with and no label: one with a single class is no error, and is said.

    Raises:
        Refused: NUMERIC_LABEL, TOO_MANY_CLASSES, or NO_VALUES, the column says nothing of any row.
    """
    if name is None:
        return None
    found = classes_of(obs[name], name, flag)
    if not found.classes:
        raise Refused("NO_VALUES", f"{flag} {name}: no judged row has a value; leave it out or name another column")
    if len(found.classes) == 1:
        only = f"{flag} {name}: no row has another value than {found.classes[0]!r}"
        what = "accuracy within it is plain accuracy" if flag == "--within" else "there is nothing that could leak"
        warnings.append(f"{only}; {what}.")
    return found


def _stated(stored: StoredEmbeddings, question: Question) -> list[str | None] | None:
    """What the split column says of every stored row, None where it has no value; None without such a column."""
    if question.split is None:
        return None
    values = stored.obs([question.split])[question.split].to_pylist()
    return [None if is_unknown(value) else str(value) for value in values]


def _given(
    values: Sequence[str | None], keys: Sequence[str], copies: I64, noun: str, question: Question, warnings: list[str]
) -> Split:
    """The split that the data state; what it leaks, and what was added to it, is said."""
    try:
        split = split_as_given(values, keys, copies, question.seed, question.validation)
    except Refused as problem:
        raise Refused(problem.code, f"--split {question.split}: {problem.message}") from problem
    if not is_stated(values, VALIDATION):
        _, validation, _ = split.cells()
        warnings.append(
            f"{question.split} names no validation {noun}: {validation:,} of the training ones, by a keyed draw "
            "(--validation), choose C and the layer."
        )
    kept = "the split is kept as it is given, which flatters every representation."
    if leaked := straddling(split.parts, copies):
        warnings.append(f"{leaked:,} test {noun} have a copy among the training ones; {kept}")
    if question.group is not None and (torn := straddling(split.parts, np.unique(keys, return_inverse=True)[1])):
        warnings.append(f"{torn:,} test {noun} are of a {question.group} that training ones are of too; {kept}")
    return split


def _keys(obs: pa.Table, row_ids: Sequence[str], noun: str, question: Question, warnings: list[str]) -> list[str]:
    """What each row is drawn and resampled with: its group, or itself."""
    if question.group is None:
        warnings.append(_without_groups(noun, is_given=question.split is not None))
        return list(row_ids)
    values = obs[question.group].to_pylist()
    keys, alone = group_keys(values, row_ids), sum(map(is_unknown, values))
    if alone == len(keys):
        raise Refused(
            "NO_GROUPS", f"--group {question.group}: no judged row has a value; leave it out to split row by row"
        )
    if alone:
        warnings.append(f"{alone:,} of {len(keys):,} {noun} have no {question.group} and stand for themselves.")
    return keys


def _without_groups(noun: str, *, is_given: bool) -> str:
    narrow = f"intervals resample single {noun}, which makes them narrow if {noun} hang together."
    if is_given:
        return f"No --group was named: {narrow}"
    return (
        f"No --group was named: {noun} of one origin (donor, slide, author) may stand on both sides of the split, "
        f"which flatters every representation, and {narrow}"
    )


def _copies(stored: StoredEmbeddings, pools: Pools, rows: I64) -> I64:
    settings: dict[str, Any] = (stored.origin() or {}).get("settings", {})
    vectors = stored.read(_reference(stored, pools), rows)
    return same_vectors(vectors, 0, stored=np.dtype(settings.get("dtype", "float32")))


def _reference(stored: StoredEmbeddings, pools: Pools) -> str:
    """The column that copies are found in: the deepest layer, not of <cls> if there is another; else the widest."""
    layered = [column for column in stored.columns if column.layer is not None and column.pool in pools]
    if not layered:
        if not stored.columns:
            raise Refused("NO_COLUMN", f"{stored.place} holds no embedding")
        return str(max(stored.columns, key=lambda column: column.dim).name)
    return str(max(layered, key=lambda column: (column.layer, column.pool != "cls")).name)


def _roots(obs: pa.Table, question: Question) -> NDArray[np.bool_] | None:
    """(N,) whether pseudotime may begin at a row; None to take the earliest."""
    if question.root is None:
        return None
    name, value = question.root
    found = np.array([str(each) == value for each in obs[name].to_pylist()])
    if not found.any():
        known = sorted({str(each) for each in obs[name].to_pylist()})
        raise Refused("BAD_ROOT", f"--root {name}={value}: no judged row has it; {name} holds {', '.join(known[:10])}")
    return found
