"""What the reports of all classifiers share: scores, counts, each class, the confusion matrix, where they come from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from xfm.core.metric import words_of
from xfm.core.parts import PARTS, TEST, TRAIN
from xfm.core.report import Estimate, Figure, Table
from xfm.judging.classifier_scores import F32, TASK, predicted
from xfm.judging.labelled import Labelled
from xfm.judging.score import stored_estimate
from xfm.metrics.classification import SCORES, confusion_matrix, per_class
from xfm.plots.classifier import draw_confusion
from xfm.training.settings import Trained

METRICS = {name: words_of(name) for name in SCORES}


def score(scores: pa.Table, representation: str, metric: str, split: str, task: str = TASK) -> Estimate | float:
    """One score with its interval, NaN where it is not defined.

    Raises:
        ValueError: there is no such score.
    """
    (row,) = _rows(scores, representation=representation, metric=metric, split=split, task=task)
    found = value_of(row)
    return float("nan") if found is None else found


def found_score(scores: pa.Table, representation: str, metric: str, split: str, task: str) -> Estimate | float | None:
    """One score; None where there is none, or where it is not defined."""
    rows = _rows(scores, representation=representation, metric=metric, split=split, task=task)
    return value_of(rows[0]) if rows else None


def value_of(row: Mapping[str, Any]) -> Estimate | float | None:
    """The value of one row of scores, with its interval where it has one."""
    return stored_estimate(row["value"], row["low"], row["high"], row["draws"], row["groups"])


def training_numbers(trained: Trained, steps_per_epoch: int, labelled: Labelled) -> dict[str, Any]:
    """Rows by part, classes, passes and time of a classifier."""
    noun = labelled.judged.noun
    return {f"{part.adjective} {noun}": len(labelled.held(part)) for part in PARTS} | {
        "classes": len(labelled.label.classes),
        "epochs": round(trained.steps / steps_per_epoch, 2),
        "epoch kept": round(trained.best_step / steps_per_epoch, 2),
        "training seconds": round(trained.seconds, 1),
    }


def classifier_provenance(run: Mapping[str, Any], labelled: Labelled, choice: Mapping[str, Any]) -> dict[str, Any]:
    """What was chosen by what, the weights it started from, the data, the rows with their labels, the versions."""
    noun, recipe = labelled.judged.noun, run["recipe"]
    return {
        "choice": {labelled.label.name: dict(choice)},
        "start": recipe["weights"],
        "data": recipe["data"],
        noun: {f"sha256 of {noun} and labels": recipe["cells"]},
        "versions": run["versions"],
    }


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


def draw_test_confusion(folder: Path, outcome: Mapping[str, F32], labelled: Labelled, more: str = "") -> Figure:
    """The confusion matrix of test rows; `more` follows in the title."""
    name, noun = labelled.label.name, labelled.judged.noun
    return draw_confusion(
        folder, "confusion", confusion(outcome, labelled), labelled.label.classes, noun=noun,
        title=f"{name} on test {noun}{more}",
        caption=f"True and predicted {name} of test {noun}; each row is shaded by its own shares.",
    )  # fmt: skip


def _rows(scores: pa.Table, **wanted: str) -> list[dict[str, Any]]:
    for name, value in wanted.items():
        scores = scores.filter(pc.equal(scores[name], value))
    found: list[dict[str, Any]] = scores.to_pylist()
    return found


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
