"""Reads a label from frozen vectors: linear classifiers and nearest neighbours, fitted on training rows alone.

Alain and Bengio, Understanding intermediate layers using linear classifier probes, ICLR workshop 2017. Classifiers
are scikit-learn's, as in cz-benchmarks' label prediction; there scaling and C are fixed, which handicaps PCA: its last
components are noise. Here both are chosen on validation rows, for layers and baselines alike; of the support vector
machine, whose features are always standardised, C alone.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from xfm.core.parts import TEST, TRAIN, VALIDATION
from xfm.metrics.classification import confusion_matrix, majority, scores
from xfm.metrics.neighbours import is_constant

COSTS = (0.001, 0.01, 0.1, 1.0, 10.0)  # C of logistic regression, weak to strong fit
SVM_COSTS = (0.0001, 0.001, 0.01, 0.1, 1.0)
MAX_ITER, SVM_MAX_ITER = 500, 1000
CONSTANT = "constant representation: every row gets the largest class"

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
Parts = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a classifier says of the cells it was not fitted on."""

    validation: I32  # validation, test: predicted classes, in the order of the cells
    test: I32
    note: str = ""  # what a reader should know; empty where all is well
    # validation_scores, test_scores: (n, K) of every class, higher is likelier; -inf for one that training lacks. None
    # where a classifier knows no order of classes.
    validation_scores: F32 | None = None
    test_scores: F32 | None = None


def standardised(vectors: F32, parts: Parts) -> F32:
    """Every feature with the mean 0 and deviation 1 that it has among training cells; constant features become 0."""
    train = vectors[parts == TRAIN]
    mean = train.mean(axis=0, dtype=np.float64)
    deviation = train.std(axis=0, dtype=np.float64)
    flat = deviation <= 1e-7 * np.maximum(1.0, np.abs(mean))
    scale = np.where(flat, 0.0, 1.0 / np.where(flat, 1.0, deviation))
    out: F32 = (vectors - mean.astype(np.float32)) * scale.astype(np.float32)
    return out


def scaled_as_one(vectors: F32, parts: Parts) -> F32:
    """Centred on training cells and divided by one number, so that distances keep their proportions."""
    train = vectors[parts == TRAIN]
    mean = train.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = float(np.sqrt(np.mean(np.square(train - mean), dtype=np.float64)))
    out: F32 = (vectors - mean) / np.float32(spread or 1.0)
    return out


SCALINGS: dict[str, Callable[[F32, Parts], F32]] = {
    "each feature scaled": standardised,  # as cz-benchmarks does
    "all features scaled alike": scaled_as_one,  # else the last of 50 principal components weighs as much as the first
}


def linear_probe(vectors: F32, codes: I32, parts: Parts, n_classes: int, _k: int = 0) -> Prediction:
    """Multinomial logistic regression. Scaling and C are those with the best macro F1 on validation rows.

    Args:
        vectors: (N, D) of rows that have a class.
        codes: (N,) class of each row.
        parts: (N,) train, validation or test.
        n_classes: how many classes there are, whether or not training rows hold them all.
    """
    from sklearn.linear_model import LogisticRegression

    def fits() -> Iterator[Fit]:
        for scaling, scale in SCALINGS.items():
            features = scale(vectors, parts)
            model = LogisticRegression(max_iter=MAX_ITER, warm_start=True)
            for cost in COSTS:  # rising, so that each fit starts near its end
                yield _fitted(model.set_params(C=cost), features, codes, parts, f"C = {cost:g}, {scaling}")

    return _without_choice(vectors, codes, parts) or _best(fits(), codes, parts, n_classes)


def linear_svm(vectors: F32, codes: I32, parts: Parts, n_classes: int, _k: int = 0) -> Prediction:
    """Linear support vector machine on standardised features, one class against the rest; C as for `linear_probe`.

    Squared hinge loss, solved in the primal: ten times faster than the dual for more rows than features.

    Args: as for `linear_probe`.

    Reference implementation: sklearn StandardScaler and LinearSVC(dual=False); Fan et al., LIBLINEAR, JMLR 2008.
    """
    from sklearn.svm import LinearSVC

    def fits() -> Iterator[Fit]:
        features = standardised(vectors, parts)
        for cost in SVM_COSTS:
            # Solved in the primal it draws nothing; without a number it would still touch numpy's global generator.
            model = LinearSVC(C=cost, dual=False, tol=1e-3, max_iter=SVM_MAX_ITER, random_state=0)
            yield _fitted(model, features, codes, parts, f"C = {cost:g}, each feature scaled")

    return _without_choice(vectors, codes, parts) or _best(fits(), codes, parts, n_classes)


def nearest_neighbours(vectors: F32, codes: I32, parts: Parts, n_classes: int, k: int) -> Prediction:
    """Majority of the k nearest training rows, Euclidean; the scaling is the one that does better on validation."""
    from sklearn.neighbors import KNeighborsClassifier

    train = parts == TRAIN
    if is_constant(vectors):
        return largest_class(codes, parts, CONSTANT)
    k = min(k, int(train.sum()))

    def fits() -> Iterator[Fit]:
        for scaling, scale in SCALINGS.items():
            features = scale(vectors, parts)
            model = KNeighborsClassifier(k, algorithm="brute").fit(features[train], codes[train])
            yield Fit(model, features, f"k = {k}, {scaling}")

    return _best(fits(), codes, parts, n_classes)


class Classifier(Protocol):
    """Fits on training rows, chooses on validation rows, predicts both other parts."""

    def __call__(self, vectors: F32, codes: I32, parts: Parts, n_classes: int, k: int, /) -> Prediction:
        """Args as for `linear_probe`; k: neighbours, for the one that has them."""


# By the name of their task. READERS may choose the layer and speak in the headline.
READERS: dict[str, Classifier] = {"probe": linear_probe, "svm": linear_svm}
CLASSIFIERS: dict[str, Classifier] = {**READERS, "knn": nearest_neighbours}
CLASSIFIER_WORDS = {"probe": "linear probe", "svm": "linear SVM", "knn": "nearest neighbours"}


def largest_class(codes: I32, parts: Parts, note: str = "") -> Prediction:
    """The most frequent class of the training cells, for every cell."""
    largest = majority(codes[parts == TRAIN])
    often = np.bincount(codes[parts == TRAIN], minlength=int(codes.max()) + 1).astype(np.float32)
    counts = [int(np.count_nonzero(parts == part)) for part in (VALIDATION, TEST)]
    validation, test = (np.full(count, largest, np.int32) for count in counts)
    scores = [np.broadcast_to(often, (count, len(often))) for count in counts]
    return Prediction(validation, test, note, *scores)


def guessed(codes: I32, parts: Parts, rng: np.random.Generator) -> Prediction:
    """Classes drawn as often as training cells have them: macro F1 of guessing is above that of the largest class.

    Reference implementation: sklearn.dummy.DummyClassifier(strategy="stratified").
    """
    train = codes[parts == TRAIN]
    validation, test = (rng.choice(train, int(np.count_nonzero(parts == part))) for part in (VALIDATION, TEST))
    return Prediction(validation, test, "drawn by class frequency")


class Fit(NamedTuple):
    """A fitted model, the (N, D) features it reads, and what it is."""

    model: Any
    features: F32
    note: str


def _fitted(model: Any, features: F32, codes: I32, parts: Parts, note: str) -> Fit:
    """A fit that was stopped before its end says so in its note."""
    from sklearn.exceptions import ConvergenceWarning

    train = parts == TRAIN
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said in the note instead
        model.fit(features[train], codes[train])
    slow = int(np.max(model.n_iter_)) >= model.max_iter
    return Fit(model, features, note + (f"; not converged in {model.max_iter} iterations" if slow else ""))


def _without_choice(vectors: F32, codes: I32, parts: Parts) -> Prediction | None:
    """The largest class, where there is nothing to fit."""
    if is_constant(vectors):
        return largest_class(codes, parts, CONSTANT)
    return largest_class(codes, parts, "one class in training") if len(np.unique(codes[parts == TRAIN])) < 2 else None


def _best(fits: Iterable[Fit], codes: I32, parts: Parts, n_classes: int) -> Prediction:
    """What the fit with the best macro F1 on validation rows predicts; the earlier one where two are equal."""
    best: tuple[float, Prediction] | None = None
    for model, features, note in fits:
        predicted, read = _read(model, features[parts == VALIDATION], n_classes)
        f1 = _f1(codes[parts == VALIDATION], predicted, n_classes)
        if best is None or f1 > best[0]:
            test, test_read = _read(model, features[parts == TEST], n_classes)
            best = f1, Prediction(predicted, test, note, read, test_read)
    assert best is not None
    return best[1]


def _read(model: Any, features: F32, n_classes: int) -> tuple[I32, F32]:
    """(n,) classes as the model's own `predict` gives them, and (n, K) what it took the largest of."""
    if hasattr(model, "decision_function"):
        found = model.decision_function(features)
        found = np.stack([-found, found], axis=1) if found.ndim == 1 else found  # two classes share one number
    else:
        found = model.predict_proba(features)
    scores = np.full((len(features), n_classes), -np.inf, np.float32)
    scores[:, model.classes_] = found
    return model.classes_[found.argmax(axis=1)].astype(np.int32), scores


def _f1(truth: I32, predicted: I32, n_classes: int) -> float:
    return float(scores(confusion_matrix(truth, predicted, n_classes))["f1"])
