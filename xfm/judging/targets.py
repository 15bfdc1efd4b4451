"""Numeric columns that are to be predicted, and the scores of what is predicted of them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.errors import Refused
from xfm.core.parts import TEST, TRAIN, VALIDATION
from xfm.judging.eval_set import EvalSet, Targets, is_unknown
from xfm.judging.score import Score, finite
from xfm.metrics.regression import bootstrap_regression
from xfm.metrics.resampling import GroupDraws

F64 = NDArray[np.float64]


def numbers_of(column: pa.ChunkedArray | pa.Array) -> F64:
    """(N,) float64; NaN for what is missing, no number or not finite."""
    return np.array([_number(value) for value in column.to_pylist()], np.float64)


def targets_of(column: pa.ChunkedArray | pa.Array, name: str, flag: str = "--targets") -> Targets:
    """A column as numbers. Text is read where most of it is numbers; what is none has no target.

    Args:
        column: numbers, or text that says numbers.

    Raises:
        Refused: NOT_NUMERIC, or NO_TARGET where no row has a value.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (is_text or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise Refused("NOT_NUMERIC", f"{flag} {name}: the column holds {kind}, which is no number to predict. Name a "
                      "numeric column, or tell its classes with --task.kind classification or --labels")  # fmt: skip
    words = column.to_pylist()
    values = numbers_of(column)
    known = [not is_unknown(word) for word in words]
    odd = [word for word, is_known, value in zip(words, known, values, strict=True) if is_known and np.isnan(value)]
    if not any(known):
        raise Refused("NO_TARGET", f"{flag} {name}: none of the {len(words):,} rows has a value; name another column")
    if len(odd) > sum(known) / 2:
        raise Refused("NOT_NUMERIC", f"{flag} {name}: {len(odd):,} of {sum(known):,} values are no number, e.g. "
                      f"{odd[0]!r}. Name a numeric column, or tell its classes with --task.kind classification or "
                      "--labels")  # fmt: skip
    return Targets(name, values, len(words) - sum(known), len(odd), str(odd[0]) if odd else "")


def check_targets(judged: EvalSet, target: Targets, flag: str = "--targets", *, has_test: bool = True) -> None:
    """Refuses a target that cannot be learned or scored.

    Raises:
        Refused: NO_ROWS for a part without a target, CONSTANT_TARGET for training or validation rows that all have
            the same one.
    """
    for part in (TRAIN, VALIDATION, TEST) if has_test else (TRAIN, VALIDATION):
        values = target.values[judged.with_target(target, part)]
        if not len(values):
            raise Refused("NO_ROWS", f"{flag} {target.name}: no {part.word} row has a number")
        if part != TEST and values.min() == values.max():
            raise Refused("CONSTANT_TARGET", f"{flag} {target.name}: all {len(values):,} {part.word} rows that have "
                          f"a number have {values[0]:g}; there is nothing to predict. Name another column, or hold out "
                          "other rows")  # fmt: skip


def target_scores(
    task: str, validation: F64, test: F64, judged: EvalSet, target: Targets, note: str = ""
) -> Iterator[Score]:
    """Every score of some predictions on validation and on test, with draws over groups.

    Args:
        task: ridge, finetune: what made them.
        validation, test: predictions of the rows of that part that have a target, in the rows' order.
        note: what a reader should know; empty where all is well.

    Raises:
        ValueError: as many predictions as rows are needed.
    """
    for part, predicted in ((VALIDATION, validation), (TEST, test)):
        rows = judged.with_target(target, part)
        draws = GroupDraws(judged.split.groups[rows], judged.seed, judged.resamples)
        for metric, found in bootstrap_regression(target.values[rows], predicted, draws).items():
            yield Score(
                task, target.name, metric, part.word, finite(found.value), found.draws, len(rows), draws.n_groups,
                note,
            )  # fmt: skip


def training_mean(judged: EvalSet, target: Targets) -> tuple[F64, F64]:
    """The mean of training rows for every validation and every test row that has a target."""
    mean = float(target.values[judged.with_target(target, TRAIN)].mean())
    validation, test = (np.full(len(judged.with_target(target, part)), mean) for part in (VALIDATION, TEST))
    return validation, test


def _number(value: Any) -> float:
    try:
        number = float(value) if not is_unknown(value) else np.nan
    except ValueError:
        return float("nan")
    return number if np.isfinite(number) else float("nan")
