"""The rows of a regression: numbers, parts and groups, how numbers are standardised, and their scores."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.parts import LEFT_OUT, TEST, TRAIN, VALIDATION, Part
from xfm.core.schema import ROW_ID
from xfm.judging.classifier_scores import TASK, name_of
from xfm.judging.eval_set import EvalSet, Targets
from xfm.judging.labelled import FEW, JudgedRows, check_copies, leaks, stored_copies, stored_split, together
from xfm.judging.representations import MEAN, Representation
from xfm.judging.score import table_of
from xfm.judging.targets import check_targets, target_scores, targets_of, training_mean
from xfm.training.tokens import TokenStore

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
FLAG = "--task.label"


@dataclass(frozen=True, slots=True)
class Scale:
    """How numbers are standardised: the network learns (number - mean) / deviation."""

    mean: float  # mean, deviation: of the training rows, in the unit of the column; the deviation with divisor n
    deviation: float


@dataclass(frozen=True, slots=True)
class RegressionRows(JudgedRows):
    """Rows with a number."""

    scale: Scale  # of the training rows

    @property
    def target(self) -> Targets:
        """The numbers that are learned."""
        return self.judged.targets[0]

    def held(self, part: Part) -> NDArray[np.int64]:
        """Positions of the rows of a part that have a number."""
        return self.judged.with_target(self.target, part)


def regression_rows(
    store: TokenStore, label: str, group: str | None, *, seed: int, resamples: int, noun: str, has_test: bool = True
) -> RegressionRows:
    """Reads ids, numbers and parts; no tokens. Arguments as for `judging.labelled.labelled_rows`.

    Raises:
        Refused: NOT_NUMERIC, NO_TARGET, CONSTANT_TARGET, TRAIN_IS_TEST, or NO_ROWS for a part without any.
    """
    target = targets_of(together(store, label), label, FLAG)
    row_ids, split = stored_split(store, group)
    judged = EvalSet(
        np.arange(len(row_ids)), tuple(row_ids), (), split, seed=seed, resamples=resamples, noun=noun, targets=(target,)
    )
    check_targets(judged, target, FLAG, has_test=has_test)
    train, test = (judged.with_target(target, part) for part in (TRAIN, TEST))
    copies = stored_copies(store)
    if has_test:
        check_copies(train, test, copies, noun)
    values = target.values[train]
    warnings = [*leaks(split, copies, group, noun), *_counted(judged, len(test))]
    return RegressionRows(judged, tuple(warnings), Scale(float(values.mean()), float(values.std())))


def _counted(judged: EvalSet, n_test: int) -> list[str]:
    (target,), noun = judged.targets, judged.noun
    found: list[str] = []
    if 0 < n_test < FEW:
        found.append(f"Only {n_test:,} test {noun}: the intervals are wide.")
    if target.missing:
        found.append(f"{target.missing:,} {noun} have no {target.name} and were left out.")
    if target.odd:
        found.append(f"{target.odd:,} {noun} have a {target.name} that is no finite number (e.g. {target.example!r}) "
                     "and were left out.")  # fmt: skip
    if left_out := int((judged.split.parts == LEFT_OUT).sum()):
        found.append(f"{left_out:,} {noun} belong to no part and were left out.")
    return found


def predicted(outcome: Mapping[str, F32], rows: RegressionRows, part: Part) -> F64:
    """(N,) numbers in the unit of the column, of all rows of a part, from (N, 1) standardised ones in the order of the
    store."""
    outputs = outcome[part.word][:, 0].astype(np.float64)
    assert len(outputs) == len(rows.judged.split.where(part))
    return rows.scale.mean + rows.scale.deviation * outputs


def score_table(outcome: Mapping[str, F32], rows: RegressionRows, mode: str, note: str = "") -> pa.Table:
    """Rows of `judging.score.SCHEMA`: the network, and the mean of training rows."""
    judged, target = rows.judged, rows.target
    own = [
        predicted(outcome, rows, part)[np.isin(judged.split.where(part), rows.held(part))]
        for part in (VALIDATION, TEST)
    ]
    network = Representation(name_of(mode), "layer", "none", "", ())
    mean = Representation(MEAN, "baseline", "none", "", ())
    return pa.concat_tables([
        table_of(network, target_scores(TASK, own[0], own[1], judged, target, note)),
        table_of(mean, target_scores(TASK, *training_mean(judged, target), judged, target)),
    ])  # fmt: skip


def prediction_table(outcome: Mapping[str, F32], rows: RegressionRows) -> pa.Table:
    """row_id, part, true and predicted number of validation and test rows; `true` is null where a row has none."""
    tables = []
    for part in (VALIDATION, TEST):
        places = rows.judged.split.where(part)
        tables.append(
            pa.table({
                ROW_ID: [rows.judged.row_ids[place] for place in places],
                "part": [part.word] * len(places),
                "true": pa.array(rows.target.values[places], pa.float64(), from_pandas=True),
                "predicted": predicted(outcome, rows, part),
            })
        )  # fmt: skip
    return pa.concat_tables(tables)
