"""What the reports of all classifiers share: their scores, each class, the confusion matrix."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from xfm.core.metric import words_of
from xfm.core.parts import TEST, TRAIN
from xfm.core.report import Estimate, Table
from xfm.judging.classifier_scores import F32, TASK, predicted
from xfm.judging.labelled import Labelled
from xfm.metrics.classification import SCORES, confusion_matrix, per_class

METRICS = {name: words_of(name) for name in SCORES}


def score(scores: pa.Table, representation: str, metric: str, split: str, task: str = TASK) -> Estimate | float:
    """One score with its interval, NaN where it is not defined."""
    wanted = {"representation": representation, "metric": metric, "split": split, "task": task}
    for name, value in wanted.items():
        scores = scores.filter(pc.equal(scores[name], value))
    (row,) = scores.select(["value", "low", "high"]).to_pylist()
    if row["value"] is None:
        return float("nan")
    return row["value"] if row["low"] is None else Estimate(**row)


def classes(outcome: Mapping[str, F32], labelled: Labelled) -> Table:
    """Precision, recall and F1 of each class on test rows, the largest first."""
    judged, label = labelled.judged, labelled.label
    found = per_class(confusion(outcome, labelled))
    training = np.bincount(label.codes[labelled.held(TRAIN)], minlength=len(label.classes))
    rows: list[list[Any]] = [
        [label.classes[code], int(training[code]), int(found["support"][code]),
         *(_or_none(found[metric][code]) for metric in ("precision", "recall", "f1"))]
        for code in np.argsort(-found["support"], kind="stable")
    ]  # fmt: skip
    return Table(
        name="classes",
        caption=f"Each {label.name} on test {judged.noun}",
        columns=["class", f"training {judged.noun}", f"test {judged.noun}", "precision", "recall", "F1"],
        rows=rows,
        note=f"A class without test {judged.noun} enters no average.",
    )


def confusion(outcome: Mapping[str, F32], labelled: Labelled) -> NDArray[np.int64]:
    """(K, K) test rows by true and predicted class."""
    truth, k = labelled.label.codes[labelled.held(TEST)], len(labelled.label.classes)
    return confusion_matrix(truth, predicted(outcome, labelled).test, k)


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
