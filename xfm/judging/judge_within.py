"""A classifier's choice among the classes that training has of a row's own set, e.g. the donors of its data set.

Donors lie within data sets, and data sets differ: who tells the data set alone is right far more often than chance.
The largest class of each set is therefore a baseline, and accuracy within the own set a score of its own. E.g. with
two data sets of three donors each, knowing the data set gives an accuracy of 1/3, and an accuracy within it of 1/3.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from xfm.core.parts import TEST, TRAIN, VALIDATION
from xfm.judging.eval_set import MISSING, EvalSet, Labels
from xfm.judging.probe import Prediction
from xfm.judging.score import Score
from xfm.metrics.classification import (
    bootstrap_scores,
    has_choice,
    seen_classes,
    set_majorities,
    within_chance,
    within_predictions,
)
from xfm.metrics.resampling import GroupDraws

WITHIN = "within_accuracy"


def judge_within(task: str, prediction: Prediction, judged: EvalSet, label: Labels) -> Iterator[Score]:
    """Accuracy within the own set on validation and on test rows; nothing where no set was named.

    Rows of unknown sets, and of sets without a training row, are left out. A classifier without scores of its classes
    guesses evenly among those of the set: that expectation has no draws.
    """
    if judged.within is None:
        return
    seen = _seen(judged, label)
    for part, read in ((VALIDATION, prediction.validation_scores), (TEST, prediction.test_scores)):
        rows = np.flatnonzero((label.codes != MISSING) & (judged.split.parts == part))
        some = has_choice(judged.within.codes[rows], seen)
        held, sets = rows[some], judged.within.codes[rows[some]]
        left = len(rows) - len(held)
        note = f"{left:,} of unknown sets, or of sets without training rows, left out" * (left > 0)
        draws = GroupDraws(judged.split.groups[held], judged.seed, judged.resamples) if len(held) else None
        groups = draws.n_groups if draws else 0
        where = (task, label.name, WITHIN, part.word)
        if draws is None:
            yield Score(*where, None, None, 0, 0, f"no {judged.within.name} of training is among them")
        elif read is None:
            even = f"mean of 1 / {label.name}s of the own {judged.within.name}"
            yield Score(
                *where, within_chance(sets, seen), None, len(held), groups, "; ".join(filter(None, (even, note)))
            )
        else:
            chosen = within_predictions(_widened(read, len(label.classes))[some], sets, seen)
            found = bootstrap_scores(label.codes[held], chosen, len(label.classes), draws)["accuracy"]
            yield Score(*where, float(found.value), found.draws, len(held), groups, note)


def largest_within(judged: EvalSet, label: Labels) -> Prediction:
    """The largest training class of each row's own set; where that is not known, the largest of all.

    Raises:
        ValueError: no set was named.
    """
    if judged.within is None:
        raise ValueError("the largest class of each one's own set needs a column of sets; none was named")
    seen = _seen(judged, label)
    train = (label.codes != MISSING) & (judged.split.parts == TRAIN)
    everywhere = int(np.bincount(label.codes[train], minlength=1).argmax())
    classes, scores = [], []
    for part in (VALIDATION, TEST):
        sets = judged.within.codes[(label.codes != MISSING) & (judged.split.parts == part)]
        classes.append(set_majorities(sets, seen, everywhere).astype(np.int32))
        counts = np.zeros((len(sets), seen.shape[1]), np.float32)
        counts[sets != MISSING] = seen[sets[sets != MISSING]]
        scores.append(counts)
    note = f"largest class of each {judged.within.name} in training"
    return Prediction(classes[0], classes[1], note, scores[0], scores[1])


def _seen(judged: EvalSet, label: Labels) -> NDArray[np.int64]:
    assert judged.within is not None
    train = judged.split.parts == TRAIN
    sizes = len(judged.within.classes), len(label.classes)
    return seen_classes(judged.within.codes[train], label.codes[train], *sizes)


def _widened(scores: NDArray[np.float32], classes: int) -> NDArray[np.float32]:
    """(n, K), with -inf for the last classes where none of them was at hand."""
    lacking = np.full((len(scores), classes - scores.shape[1]), -np.inf, np.float32)
    return np.concatenate([scores, lacking], axis=1)
