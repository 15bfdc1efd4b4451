"""Scores of the adversarial classifier: its classes, those of the own data set, and what its features still leak.

What leaks is told by classifiers that are fitted after training, on frozen features (metrics/leakage.py): the
adversary's own loss is no evidence.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.loops.evaluation.judge import Score, classifier_scores, table_of
from xfm.loops.evaluation.judged import MISSING, Labels
from xfm.loops.evaluation.probe import Prediction
from xfm.loops.evaluation.representations import CHANCE, WITHIN_MAJORITY, Representation
from xfm.loops.evaluation.split import PARTS, TEST, TRAIN, VALIDATION
from xfm.loops.finetuning import scores as plain
from xfm.loops.finetuning.rows import Labelled
from xfm.loops.finetuning.scores import F32, TASK, name_of
from xfm.metrics.classification import bootstrap_scores
from xfm.metrics.leakage import fresh_predictions, leakage, leakage_scores, why_undefined
from xfm.metrics.resampling import GroupDraws
from xfm.metrics.within import has_choice, seen_classes, set_majorities, within_chance, within_predictions
from xfm.tasks.adversarial import AdversarialClassification

LEAKAGE, FRESH = "leakage", "fresh_probe"  # tasks of the table
WITHIN = "within_accuracy"
PROBED = 2000  # rows that a fresh classifier is fitted on at most, evenly apart


def score_table(
    outcome: Mapping[str, Any], labelled: Labelled, task: AdversarialClassification, note: str = ""
) -> pa.Table:
    """Rows of `evaluation.judge.SCHEMA`: the network, the largest class of all and of the data set, guessing.

    Args:
        outcome: of the learner.
        labelled: the rows, with the attribute and the data set among their labels.
        task: names the columns.
        note: on the network's predictions.
    """
    own = name_of(task.mode)
    within, attribute = labelled.beside(task.within), labelled.beside(task.attribute)
    tables = [plain.score_table(outcome, labelled, task.mode, note)]
    if within is not None:
        tables += list(_within(outcome, labelled, within, own))
    found = [] if attribute is None else list(_leaked(outcome, labelled, attribute))
    for label in (labelled.label, within):
        if label is not None:
            found += list(_fresh(outcome, labelled, label))
    tables.append(table_of(_named(own, "layer"), iter(found)))
    return pa.concat_tables(tables)


def _within(outcome: Mapping[str, F32], labelled: Labelled, within: Labels, own: str) -> Iterator[pa.Table]:
    """Accuracy among the classes of the own data set, of the network and of guesses."""
    judged, label = labelled.judged, labelled.label
    train = judged.split.parts == TRAIN
    seen = seen_classes(within.codes[train], label.codes[train], len(within.classes), len(label.classes))
    scores: dict[str, list[Score]] = {own: [], WITHIN_MAJORITY: [], CHANCE: []}
    oracle: dict[int, NDArray[np.int32]] = {}
    for part in (VALIDATION, TEST):
        rows = labelled.held(part)
        # Where the data set is not known, its largest class is the largest of all.
        everywhere = int(seen.sum(axis=0).argmax()) if seen.sum() else 0
        some = has_choice(within.codes[rows], seen)
        guessed = np.where(some, set_majorities(within.codes[rows], seen), everywhere)
        oracle[part] = guessed.astype(np.int32)
        logits = outcome[PARTS[part]][np.isin(np.flatnonzero(judged.split.parts == part), rows)]
        held, sets = rows[some], within.codes[rows[some]]
        left = f"{len(rows) - len(held):,} rows of data sets without training rows left out" * (len(held) < len(rows))
        if not len(held):
            for each in scores.values():
                each.append(
                    Score(TASK, label.name, WITHIN, PARTS[part], None, None, 0, 0, f"no {within.name} is known")
                )
            continue
        draws = GroupDraws(judged.split.groups[held], judged.seed, judged.resamples)
        for name, predicted in (
            (own, within_predictions(logits[some], sets, seen)),
            (WITHIN_MAJORITY, set_majorities(sets, seen)),
        ):
            one = bootstrap_scores(label.codes[held], predicted, len(label.classes), draws)["accuracy"]
            scores[name].append(
                Score(TASK, label.name, WITHIN, PARTS[part], one.value, one.draws, len(held), draws.n_groups, left)
            )
        scores[CHANCE].append(
            Score(TASK, label.name, WITHIN, PARTS[part], within_chance(sets, seen), None, len(held), draws.n_groups,
                  f"mean of 1 / {label.name}s of the own {within.name}")
        )  # fmt: skip
    yield table_of(_named(own, "layer"), iter(scores[own]))
    yield table_of(_named(CHANCE, "baseline"), iter(scores[CHANCE]))
    classified = classifier_scores(TASK, Prediction(oracle[VALIDATION], oracle[TEST]), judged, label)
    yield table_of(_named(WITHIN_MAJORITY, "baseline"), iter([*classified, *scores[WITHIN_MAJORITY]]))


def _leaked(outcome: Mapping[str, F32], labelled: Labelled, attribute: Labels) -> Iterator[Score]:
    """What a fresh classifier reads of the attribute in rows of donors that it has not seen."""
    judged, label = labelled.judged, labelled.label
    for part in (VALIDATION, TEST):
        rows, name = labelled.held(part), PARTS[part]
        rows = _some(rows[attribute.codes[rows] != MISSING])
        codes, donors = attribute.codes[rows], label.codes[rows]
        if why := why_undefined(codes, donors):
            for metric in ("auroc", "balanced_accuracy"):
                yield Score(LEAKAGE, attribute.name, metric, name, None, None, len(rows), len(np.unique(donors)), why)
            continue
        draws = GroupDraws(donors, judged.seed, judged.resamples)
        read = leakage(
            _features(outcome, labelled, part, rows), codes, donors, judged.seed, n_classes=len(attribute.classes)
        )
        for metric, one in leakage_scores(read, codes, draws).items():
            yield Score(
                LEAKAGE, attribute.name, metric, name, one.value, one.draws, len(rows), draws.n_groups,
                f"cross-validated over whole {label.name}s",
            )  # fmt: skip


def _fresh(outcome: Mapping[str, F32], labelled: Labelled, label: Labels) -> Iterator[Score]:
    """What a fresh classifier reads of a label in test rows, cross-validated row by row."""
    judged = labelled.judged
    rows = labelled.held(TEST)
    rows = _some(rows[label.codes[rows] != MISSING])
    codes = label.codes[rows]
    if len(np.unique(codes)) < 2:
        return
    predicted = fresh_predictions(_features(outcome, labelled, TEST, rows), codes, judged.seed)
    draws = GroupDraws(judged.split.groups[rows], judged.seed, judged.resamples)
    found = bootstrap_scores(codes, predicted, len(label.classes), draws)
    for metric in ("accuracy", "balanced_accuracy"):
        one = found[metric]
        yield Score(
            FRESH, label.name, metric, "test", one.value, one.draws, len(rows), draws.n_groups,
            "cross-validated row by row",
        )  # fmt: skip


def _features(outcome: Mapping[str, F32], labelled: Labelled, part: int, rows: NDArray[np.int64]) -> F32:
    """(n, F) of some rows of a part."""
    every = np.flatnonzero(labelled.judged.split.parts == part)
    found: F32 = outcome[f"{PARTS[part]}_features"][np.searchsorted(every, rows)]
    return found


def _some(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most PROBED, evenly apart."""
    return rows if len(rows) <= PROBED else rows[np.linspace(0, len(rows) - 1, PROBED).astype(np.int64)]


def _named(name: str, kind: Any) -> Representation:
    return Representation(name, kind, "none", "", ())
