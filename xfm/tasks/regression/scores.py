"""Scores and predictions of a trained regression, as tables."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.parts import TEST, VALIDATION, Part
from xfm.core.schema import PART, ROW_ID
from xfm.judging.classifier_scores import TASK, name_of
from xfm.judging.representations import MEAN, Representation
from xfm.judging.score import table_of
from xfm.judging.targets import target_scores, training_mean
from xfm.tasks.regression.rows import RegressionRows

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


def predicted(outcome: Mapping[str, F32], rows: RegressionRows, part: Part) -> F64:
    """(N,) numbers in the unit of the column, of all rows of a part.

    Args:
        outcome: {validation, test: (N, 1) standardised numbers of all rows of the part, in the order of the store}.
    """
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
                PART: [part.word] * len(places),
                "true": pa.array(rows.target.values[places], pa.float64(), from_pandas=True),
                "predicted": predicted(outcome, rows, part),
            })
        )  # fmt: skip
    return pa.concat_tables(tables)
