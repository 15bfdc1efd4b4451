"""Scores of the adversarial classifier: its classes, those of the own data set, and what its features still leak.

What leaks is told by classifiers that are fitted after training, on frozen features (metrics/leakage.py): the
adversary's own loss is no evidence. What a donor has (its sex, its data set) is read in donors that the classifier
was not fitted on, though the network was trained with them;
the donors themselves row by row.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.metric import FRESH, LEAKAGE
from xfm.core.parts import TEST, VALIDATION, Part
from xfm.judging import classifier_scores as plain
from xfm.judging.classifier_scores import F32, TASK, name_of
from xfm.judging.eval_set import Labels
from xfm.judging.judge import classifier_scores
from xfm.judging.judge_leakage import judge_probe
from xfm.judging.judge_within import judge_within, largest_within
from xfm.judging.labelled import Labelled
from xfm.judging.probe import Prediction
from xfm.judging.representations import CHANCE, WITHIN_MAJORITY, Representation
from xfm.judging.score import Score, table_of
from xfm.metrics.calibration import gap_sums, weighted_error
from xfm.metrics.classification import bootstrap_scores
from xfm.metrics.leakage import evenly_apart, fresh_predictions
from xfm.metrics.resampling import F64, GroupDraws, bootstrap, group_sums, ratios, weighted_sums
from xfm.tasks.adversarial.settings import AdversarialClassification

FRESH_FOLDS = 3


def score_table(
    outcome: Mapping[str, Any], labelled: Labelled, task: AdversarialClassification, note: str = ""
) -> pa.Table:
    """Rows of `judging.score.SCHEMA`: the network, the largest class of all and of the data set, guessing. Attribute
    and data set are among the labels of the rows."""
    own = name_of(task.mode)
    within, attribute = labelled.also_read(task.within), labelled.also_read(task.attribute)
    tables = [plain.score_table(outcome, labelled, task.mode, note)]
    if within is not None:
        tables += list(_within(outcome, labelled, within, own))
    found = list(_calibration(outcome, labelled, note))
    if attribute is not None:
        found += _probed(outcome, labelled, attribute, LEAKAGE, (VALIDATION, TEST))
    found += _fresh(outcome, labelled)
    if within is not None and within is not attribute:
        found += _probed(outcome, labelled, within, FRESH, (TEST,))
    tables.append(table_of(_named(own, "layer"), iter(found)))
    return pa.concat_tables(tables)


def _within(outcome: Mapping[str, F32], labelled: Labelled, within: Labels, own: str) -> Iterator[pa.Table]:
    """Accuracy among the classes of the own data set, of the network and of guesses."""
    judged, label = replace(labelled.judged, within=within), labelled.label
    told = plain.predicted(outcome, labelled)
    told = replace(told, validation_scores=_logits(outcome, labelled, VALIDATION),
                   test_scores=_logits(outcome, labelled, TEST))  # fmt: skip
    largest, even = largest_within(judged, label), Prediction(told.validation, told.test)
    yield table_of(_named(own, "layer"), judge_within(TASK, told, judged, label))
    yield table_of(_named(CHANCE, "baseline"), judge_within(TASK, even, judged, label))
    scores = [*classifier_scores(TASK, largest, judged, label), *judge_within(TASK, largest, judged, label)]
    yield table_of(_named(WITHIN_MAJORITY, "baseline"), iter(scores))


def _calibration(outcome: Mapping[str, F32], labelled: Labelled, note: str) -> Iterator[Score]:
    """Log loss in nats, and expected calibration error over 15 bins, of the network's probabilities."""
    judged, label = labelled.judged, labelled.label
    for part in (VALIDATION, TEST):
        rows, logits = labelled.held(part), _logits(outcome, labelled, part).astype(np.float64)
        shifted = logits - logits.max(axis=1, keepdims=True, initial=-np.inf)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        draws = GroupDraws(judged.split.groups[rows], judged.seed, judged.resamples)
        for metric, one in _calibration_scores(logs, label.codes[rows], draws).items():
            yield Score(TASK, label.name, metric, part.word, one.value, one.draws, len(rows), draws.n_groups, note)


def _calibration_scores(logs: F64, codes: NDArray[np.int32], draws: GroupDraws) -> dict[str, Any]:
    losses = np.stack([-logs[np.arange(len(codes)), codes], np.ones(len(codes))], axis=1)
    sums = group_sums(draws.codes, draws.n_groups, losses)
    confidence = np.minimum(np.exp(logs.max(axis=1)), 1.0)
    gaps = gap_sums(confidence, logs.argmax(axis=1) == codes, draws.codes, draws.n_groups)

    def statistic(weights: NDArray[Any]) -> dict[str, F64]:
        loss, rows = weighted_sums(weights, sums).T
        return {"log_loss": ratios(loss, rows), "ece": weighted_error(weights, gaps, rows)}

    return bootstrap(draws, statistic)


def _probed(
    outcome: Mapping[str, F32], labelled: Labelled, attribute: Labels, task: str, parts: tuple[Part, ...]
) -> Iterator[Score]:
    """What a fresh classifier reads of a column in rows of donors that it has not seen."""
    return judge_probe(
        lambda rows, part: _features(outcome, labelled, part, rows), labelled.judged, attribute, task, parts
    )


def _fresh(outcome: Mapping[str, F32], labelled: Labelled) -> Iterator[Score]:
    """What a fresh classifier reads of the label in test rows, cross-validated row by row."""
    judged, label = labelled.judged, labelled.label
    rows = evenly_apart(labelled.held(TEST))
    codes, groups = label.codes[rows], judged.split.groups[rows]
    where = (FRESH, label.name)
    n_classes = len(np.unique(codes))
    if len(rows) < FRESH_FOLDS or n_classes < 2:
        why = f"undefined: {len(rows)} rows of {n_classes} classes, {FRESH_FOLDS} rows and two classes are needed"
        for metric in ("accuracy", "balanced_accuracy"):
            yield Score(*where, metric, TEST.word, None, None, len(rows), len(np.unique(groups)), why)
        return
    predicted = fresh_predictions(_features(outcome, labelled, TEST, rows), codes, judged.seed, FRESH_FOLDS)
    draws = GroupDraws(groups, judged.seed, judged.resamples)
    found = bootstrap_scores(codes, predicted, len(label.classes), draws)
    for metric in ("accuracy", "balanced_accuracy"):
        one = found[metric]
        yield Score(
            *where, metric, TEST.word, one.value, one.draws, len(rows), draws.n_groups, "cross-validated row by row"
        )


def _logits(outcome: Mapping[str, F32], labelled: Labelled, part: Part) -> F32:
    """(n, K) of the rows of a part that have a class."""
    found: F32 = outcome[part.word][_places(labelled, part, labelled.held(part))]
    return found


def _features(outcome: Mapping[str, F32], labelled: Labelled, part: Part, rows: NDArray[np.int64]) -> F32:
    """(n, F) of some rows of a part."""
    found: F32 = outcome[f"{part.word}_features"][_places(labelled, part, rows)]
    return found


def _places(labelled: Labelled, part: Part, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) where rows of a part stand among all of it."""
    return np.searchsorted(np.flatnonzero(labelled.judged.split.parts == part), rows)


def _named(name: str, kind: Any) -> Representation:
    return Representation(name, kind, "none", "", ())
