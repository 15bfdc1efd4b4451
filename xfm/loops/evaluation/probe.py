"""Reads a label from frozen vectors: a linear probe and nearest neighbours, nothing fitted beyond the training cells.

Alain and Bengio, Understanding intermediate layers using linear classifier probes, ICLR workshop 2017. Classifiers
are scikit-learn's, as in cz-benchmarks' label prediction; there scaling and C are fixed, which handicaps PCA: its last
components are noise. Here both are chosen on validation cells, for layers and baselines alike.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfm.loops.evaluation.split import TEST, TRAIN, VALIDATION
from xfm.metrics.classification import confusion_of, majority, scores
from xfm.metrics.neighbours import is_constant

COSTS = (0.001, 0.01, 0.1, 1.0, 10.0)  # C of logistic regression, weak to strong fit
MAX_ITER = 500
CONSTANT = "constant representation: every cell gets the largest class"

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a classifier says of the cells it was not fitted on.

    Attributes:
        validation, test: predicted classes, in the order of the cells.
        note: what a reader should know; empty where all is well.
    """

    validation: I32
    test: I32
    note: str = ""


def standardised(vectors: F32, parts: NDArray[np.int8]) -> F32:
    """Every feature with the mean 0 and deviation 1 that it has among training cells; constant features become 0."""
    train = vectors[parts == TRAIN]
    mean = train.mean(axis=0, dtype=np.float64)
    deviation = train.std(axis=0, dtype=np.float64)
    flat = deviation <= 1e-7 * np.maximum(1.0, np.abs(mean))
    scale = np.where(flat, 0.0, 1.0 / np.where(flat, 1.0, deviation))
    out: F32 = (vectors - mean.astype(np.float32)) * scale.astype(np.float32)
    return out


def scaled_as_one(vectors: F32, parts: NDArray[np.int8]) -> F32:
    """Centred on training cells and divided by one number, so that distances keep their proportions."""
    train = vectors[parts == TRAIN]
    mean = train.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = float(np.sqrt(np.mean(np.square(train - mean), dtype=np.float64)))
    out: F32 = (vectors - mean) / np.float32(spread or 1.0)
    return out


SCALINGS: dict[str, Callable[[F32, NDArray[np.int8]], F32]] = {
    "each feature scaled": standardised,  # as cz-benchmarks does
    "all features scaled alike": scaled_as_one,  # else the last of 50 principal components weighs as much as the first
}


def linear_probe(vectors: F32, codes: I32, parts: NDArray[np.int8], n_classes: int) -> Prediction:
    """Multinomial logistic regression. Scaling and C are those with the best macro F1 on validation cells.

    Args:
        vectors: (N, D) of cells that have a class.
        codes: (N,) class of each cell.
        parts: (N,) train, validation or test.
        n_classes: how many classes there are, whether or not training cells hold them all.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    train, validation = parts == TRAIN, parts == VALIDATION
    if is_constant(vectors) or len(np.unique(codes[train])) < 2:
        return largest_class(codes, parts, CONSTANT if is_constant(vectors) else "one class in training")
    best: tuple[float, Prediction] | None = None
    for scaling, scale in SCALINGS.items():
        features = scale(vectors, parts)
        model = LogisticRegression(max_iter=MAX_ITER, warm_start=True)
        for cost in COSTS:  # rising, so that each fit starts near its end
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # said in the note instead
                model.set_params(C=cost).fit(features[train], codes[train])
            f1 = _f1(codes[validation], model.predict(features[validation]), n_classes)
            if best is None or f1 > best[0]:
                slow = int(np.max(model.n_iter_)) >= MAX_ITER
                note = f"C = {cost:g}, {scaling}" + (f"; not converged in {MAX_ITER} iterations" if slow else "")
                best = f1, _prediction(model, features, parts, note)
    assert best is not None
    return best[1]


def nearest_neighbours(vectors: F32, codes: I32, parts: NDArray[np.int8], n_classes: int, k: int) -> Prediction:
    """Majority of the k nearest training cells, Euclidean; the scaling is the one that does better on validation."""
    from sklearn.neighbors import KNeighborsClassifier

    train, validation = parts == TRAIN, parts == VALIDATION
    if is_constant(vectors):
        return largest_class(codes, parts, CONSTANT)
    k = min(k, int(train.sum()))
    best: tuple[float, Prediction] | None = None
    for scaling, scale in SCALINGS.items():
        features = scale(vectors, parts)
        model = KNeighborsClassifier(k, algorithm="brute").fit(features[train], codes[train])
        found = _prediction(model, features, parts, f"k = {k}, {scaling}")
        f1 = _f1(codes[validation], found.validation, n_classes)
        if best is None or f1 > best[0]:
            best = f1, found
    assert best is not None
    return best[1]


def largest_class(codes: I32, parts: NDArray[np.int8], note: str = "") -> Prediction:
    """The most frequent class of the training cells, for every cell."""
    largest = majority(codes[parts == TRAIN])
    counts = [int(np.count_nonzero(parts == part)) for part in (VALIDATION, TEST)]
    validation, test = (np.full(count, largest, np.int32) for count in counts)
    return Prediction(validation, test, note)


def guessed(codes: I32, parts: NDArray[np.int8], rng: np.random.Generator) -> Prediction:
    """Classes drawn as often as training cells have them: macro F1 of guessing is above that of the largest class.

    Reference implementation: sklearn.dummy.DummyClassifier(strategy="stratified").
    """
    train = codes[parts == TRAIN]
    validation, test = (rng.choice(train, int(np.count_nonzero(parts == part))) for part in (VALIDATION, TEST))
    return Prediction(validation, test, "drawn by class frequency")


def _prediction(model: Any, features: F32, parts: NDArray[np.int8], note: str) -> Prediction:
    validation, test = (model.predict(features[parts == part]).astype(np.int32) for part in (VALIDATION, TEST))
    return Prediction(validation, test, note)


def _f1(truth: I32, predicted: I32, n_classes: int) -> float:
    one = confusion_of(truth, predicted, n_classes, np.zeros(len(truth), np.int64), 1).toarray()
    return float(scores(one.reshape(n_classes, n_classes))["f1"])
