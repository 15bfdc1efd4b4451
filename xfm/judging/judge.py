"""One representation, judged: every score with its interval, and the draws that let scores be subtracted.

All representations meet the same cells, the same split and the same resamples, so that a difference is one of
representations. A row of the table is one (task, label, metric, split).
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xfm.core.parts import TEST, VALIDATION
from xfm.core.random import rng_for
from xfm.judging.eval_set import MISSING, EvalSet, Labels, Targets
from xfm.judging.probe import CLASSIFIERS, READERS, Prediction, guessed, largest_class
from xfm.judging.representations import CHANCE, MAJORITY, MEAN, WITHIN_MAJORITY
from xfm.judging.score import Score, finite
from xfm.metrics.classification import bootstrap_scores
from xfm.metrics.resampling import GroupDraws, Resampled

Task = Literal["probe", "svm", "knn", "clustering", "integration", "trajectory"]
TASKS: tuple[Task, ...] = ("probe", "svm", "knn", "clustering", "integration", "trajectory")

F32 = NDArray[np.float32]


def judge(
    vectors: F32 | None,
    judged: EvalSet,
    tasks: Sequence[str],
    labels: Sequence[Labels],
    targets: Sequence[Targets] = (),
    *,
    unseeing: str = MAJORITY,
) -> Iterator[Score]:
    """All scores of one representation.

    Args:
        vectors: (N, D) one row for each judged cell; None for a baseline that knows nothing of them.
        tasks: which of TASKS; what needs a batch or a time that was not named is left out.
        unseeing: what to say without vectors: always the largest class (majority), classes drawn as often as training
            cells have them (chance), the largest class of the cell's own set (within_majority), or the mean of the
            numbers that training cells have (train_mean).
    """
    if targets and (vectors is not None or unseeing == MEAN):
        from xfm.judging.ridge import ridge_scores

        for target in targets:
            yield from ridge_scores(vectors, judged, target)
    for label in labels if unseeing != MEAN else ():
        for task in CLASSIFIERS:
            # Beside a classifier that may choose the layer stands what knows nothing of the vectors.
            if task in tasks and (vectors is not None or task in READERS):
                yield from _classified(task, vectors, judged, label, unseeing)
    if vectors is None:
        return
    if judged.attribute is not None:
        from xfm.judging.judge_leakage import judge_leakage

        yield from judge_leakage(vectors, judged, judged.attribute)
    if {"clustering", "integration", "trajectory"} & set(tasks):
        from xfm.judging.judge_graph import judge_graph

        yield from judge_graph(vectors, judged, tasks, labels)


def classifier_scores(task: str, prediction: Prediction, judged: EvalSet, label: Labels) -> Iterator[Score]:
    """Every score of a classifier on validation and on test, with draws over groups, whatever made its predictions.

    Args:
        task: probe, svm, knn, finetune, zero_shot: the classifier.
        prediction: of the validation and of the test rows that hold a class of the label, each in the rows' order.

    Raises:
        ValueError: as many predictions as rows are needed.
    """
    for part, predicted in ((VALIDATION, prediction.validation), (TEST, prediction.test)):
        rows = np.flatnonzero((label.codes != MISSING) & (judged.split.parts == part))
        draws = GroupDraws(judged.split.groups[rows], judged.seed, judged.resamples)
        found = bootstrap_scores(label.codes[rows], predicted, len(label.classes), draws)
        for metric, resampled in found.items():
            yield Score(
                task, label.name, metric, part.word, *_defined(resampled), len(rows), draws.n_groups, prediction.note,
                predicted if part is TEST and metric == "f1" else None,
            )  # fmt: skip


def _classified(task: str, vectors: F32 | None, judged: EvalSet, label: Labels, unseeing: str) -> Iterator[Score]:
    held = np.flatnonzero(label.codes != MISSING)
    codes, parts = label.codes[held], judged.split.parts[held]
    if vectors is None and unseeing == WITHIN_MAJORITY:
        from xfm.judging.judge_within import largest_within

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
        from xfm.judging.judge_within import judge_within

        yield from judge_within(task, prediction, judged, label)


def _defined(resampled: Resampled) -> tuple[float | None, NDArray[np.float64]]:
    return finite(resampled.value), resampled.draws
