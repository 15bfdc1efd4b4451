"""One representation, judged: every score with its interval, and the draws that let scores be subtracted.

All representations meet the same cells, the same split and the same resamples, so that a difference is one of
representations. A row of the table is one (task, label, metric, split).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.random import rng_for
from xfm.loops.evaluation.judged import MISSING, Judged, Labels
from xfm.loops.evaluation.probe import CLASSIFIERS, READERS, Prediction, guessed, largest_class
from xfm.loops.evaluation.representations import CHANCE, MAJORITY, WITHIN_MAJORITY, Representation
from xfm.loops.evaluation.split import TEST, VALIDATION
from xfm.metrics.classification import bootstrap_scores
from xfm.metrics.resampling import GroupDraws, Resampled, estimate

Task = Literal["probe", "svm", "knn", "clustering", "integration", "trajectory"]
TASKS: tuple[Task, ...] = ("probe", "svm", "knn", "clustering", "integration", "trajectory")

SCHEMA = pa.schema(
    [
        ("representation", pa.string()),
        ("kind", pa.string()),
        ("pool", pa.string()),
        ("layer", pa.int32()),
        ("task", pa.string()),
        ("label", pa.string()),
        ("metric", pa.string()),
        ("split", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("cells", pa.int64()),
        ("groups", pa.int64()),
        ("note", pa.string()),
        ("draws", pa.list_(pa.float32())),
        (
            "predicted",
            pa.list_(pa.int32()),
        ),  # of the test cells that hold a label, in their order; f1 of classifiers only
    ]
)

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Score:
    """One number of a representation.

    Attributes:
        task, label, metric, split: what it says of what, on which cells.
        value: None where it is not defined, as `note` explains.
        draws: (B,) resamples, or None where the metric has none.
        cells, groups: how many it was computed on.
        predicted: the classes behind it.
    """

    task: str
    label: str
    metric: str
    split: str
    value: float | None
    draws: NDArray[np.float64] | None
    cells: int
    groups: int
    note: str = ""
    predicted: NDArray[np.int32] | None = None


def judge(
    vectors: F32 | None, judged: Judged, tasks: Sequence[str], labels: Sequence[Labels], *, unseeing: str = MAJORITY
) -> Iterator[Score]:
    """All scores of one representation.

    Args:
        vectors: (N, D) one row for each judged cell; None for a baseline that knows nothing of them.
        judged: cells, labels, split.
        tasks: which of TASKS; what needs a batch or a time that was not named is left out.
        labels: which labels to read.
        unseeing: what to say without vectors: always the largest class (majority), classes drawn as often as training
            cells have them (chance), or the largest class of the cell's own set (within_majority).
    """
    for label in labels:
        for task in CLASSIFIERS:
            # Beside a classifier that may choose the layer stands what knows nothing of the vectors.
            if task in tasks and (vectors is not None or task in READERS):
                yield from _classified(task, vectors, judged, label, unseeing)
    if vectors is None:
        return
    if judged.attribute is not None:
        from xfm.loops.evaluation.judge_leakage import judge_leakage

        yield from judge_leakage(vectors, judged, judged.attribute)
    if {"clustering", "integration", "trajectory"} & set(tasks):
        from xfm.loops.evaluation.judge_graph import judge_graph

        yield from judge_graph(vectors, judged, tasks, labels)


def table_of(representation: Representation, scores: Iterator[Score]) -> pa.Table:
    """Scores as rows of SCHEMA."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for score in scores:
        ends = estimate(np.nan if score.value is None else score.value, _or_nan(score.draws))
        row: dict[str, Any] = {
            "representation": representation.name,
            "kind": representation.kind,
            "pool": representation.pool,
            "layer": representation.layer,
            "task": score.task,
            "label": score.label,
            "metric": score.metric,
            "split": score.split,
            "value": score.value,
            "low": _finite(ends.low) if ends else None,
            "high": _finite(ends.high) if ends else None,
            "cells": score.cells,
            "groups": score.groups,
            "note": score.note,
            "draws": [] if score.draws is None else score.draws.astype(np.float32),
            "predicted": score.predicted,
        }
        for name, value in row.items():
            columns[name].append(value)
    return pa.table(columns, schema=SCHEMA)


def classifier_scores(task: str, prediction: Prediction, judged: Judged, label: Labels) -> Iterator[Score]:
    """Every score of a classifier on validation and on test, with draws over groups, whatever made its predictions.

    Args:
        task: probe, svm, knn, finetune, zero_shot: the classifier.
        prediction: of the validation and of the test rows that hold a class of the label, each in the rows' order.
        judged: rows, split, resamples.
        label: that was predicted.

    Raises:
        ValueError: as many predictions as rows are needed.
    """
    for name, part, predicted in (
        ("validation", VALIDATION, prediction.validation),
        ("test", TEST, prediction.test),
    ):
        rows = np.flatnonzero((label.codes != MISSING) & (judged.split.parts == part))
        draws = GroupDraws(judged.split.groups[rows], judged.seed, judged.resamples)
        found = bootstrap_scores(label.codes[rows], predicted, len(label.classes), draws)
        for metric, resampled in found.items():
            yield Score(
                task, label.name, metric, name, *_defined(resampled), len(rows), draws.n_groups, prediction.note,
                predicted if name == "test" and metric == "f1" else None,
            )  # fmt: skip


def _classified(task: str, vectors: F32 | None, judged: Judged, label: Labels, unseeing: str) -> Iterator[Score]:
    held = np.flatnonzero(label.codes != MISSING)
    codes, parts = label.codes[held], judged.split.parts[held]
    if vectors is None and unseeing == WITHIN_MAJORITY:
        from xfm.loops.evaluation.judge_within import largest_within

        prediction = largest_within(judged, label)
    elif vectors is None:
        rng = rng_for(judged.seed, f"chance\x1f{label.name}")
        prediction = guessed(codes, parts, rng) if unseeing == CHANCE else largest_class(codes, parts)
    else:
        classify = CLASSIFIERS[task]
        prediction = classify(vectors[held], codes, parts, len(label.classes), judged.k)
    yield from classifier_scores(task, prediction, judged, label)
    # The largest class of all is no choice within a set; the largest one of the set is a baseline of its own.
    if label.name == judged.labels[0].name and (vectors is not None or unseeing != MAJORITY):
        from xfm.loops.evaluation.judge_within import judge_within

        yield from judge_within(task, prediction, judged, label)


def _defined(resampled: Resampled) -> tuple[float | None, NDArray[np.float64]]:
    return _finite(resampled.value), resampled.draws


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _or_nan(draws: NDArray[np.float64] | None) -> NDArray[np.float64]:
    return np.full(1, np.nan) if draws is None else draws
