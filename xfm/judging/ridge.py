"""Reads a number from frozen vectors: ridge regression, fitted on training rows alone.

Scaling of the features and the penalty are chosen on validation rows, for layers and baselines alike, as of the linear
probe (`judging.probe`): one scaling for all would handicap PCA, whose last components are noise.

Reference implementation: sklearn.linear_model.Ridge; Hoerl and Kennard, Technometrics 1970.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from xfm.core.parts import TEST, TRAIN, VALIDATION
from xfm.judging.eval_set import EvalSet, Targets
from xfm.judging.probe import SCALINGS
from xfm.judging.score import Score
from xfm.judging.targets import target_scores, training_mean
from xfm.metrics.neighbours import is_constant

RIDGE = "ridge"  # the task
# Penalties for each training row: with scaled features the same range suits few rows and many.
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
CONSTANT = "constant representation: every row gets the mean of training rows"

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


def ridge_scores(vectors: F32 | None, judged: EvalSet, target: Targets) -> Iterator[Score]:
    """Every score of ridge regression on a representation.

    Args:
        vectors: (N, D) of all judged rows; None for the mean of training rows.
        target: what is read; rows without a number are left out.
    """
    if vectors is None:
        yield from target_scores(RIDGE, *training_mean(judged, target), judged, target)
        return
    held = np.isfinite(target.values)
    found = ridge_probe(vectors[held], target.values[held], judged.split.parts[held])
    yield from target_scores(RIDGE, found[0], found[1], judged, target, found[2])


def ridge_probe(vectors: F32, values: F64, parts: NDArray[np.int8]) -> tuple[F64, F64, str]:
    """Predictions of validation and of test rows, in their order, and what was chosen.

    Args:
        vectors: (N, D) of rows that have a number.
        values: (N,) the numbers.
        parts: (N,) train, validation or test.
    """
    from sklearn.linear_model import Ridge

    train, validation, test = (parts == part for part in (TRAIN, VALIDATION, TEST))
    if is_constant(vectors):
        mean = values[train].mean()
        return np.full(validation.sum(), mean), np.full(test.sum(), mean), CONSTANT
    best: tuple[float, F64, F64, str] | None = None
    for scaling, scale in SCALINGS.items():
        features = scale(vectors, parts).astype(np.float64)
        for penalty in PENALTIES:
            model = Ridge(alpha=penalty * int(train.sum())).fit(features[train], values[train])
            predicted = model.predict(features[validation])
            error = float(np.square(predicted - values[validation]).mean())
            if best is None or error < best[0]:
                note = f"penalty = {penalty:g} a row, {scaling}"
                best = error, predicted, model.predict(features[test]), note
    assert best is not None
    return best[1:]
