"""What frozen features still say of an attribute: a fresh logistic regression, judged on groups it never saw.

An adversary's own loss is no evidence: it may be weak, or broken. A new classifier is fitted after training, as for the
invariance of representations (Elazar and Goldberg, EMNLP 2018, section 4), and cross-validated over whole groups:
where an attribute is a function of the donor, a classifier that has seen the donor answers by heart.

AUROC of groups that were held out may lie below one half. That is no error: with few groups, leaving some out shifts
the mean of their class away from them. What leaks is the distance from one half, |AUROC - 1/2|.

Reference implementation: sklearn.metrics.roc_auc_score, average="macro", one class against the rest.
"""

# Shapes: N cells, D features, K classes, G groups, B resamples.

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from xfm.core.random import key64
from xfm.metrics.classification import bootstrap_scores
from xfm.metrics.regression import ratios
from xfm.metrics.resampling import F64, GroupDraws, Ints, Resampled, bootstrap

FOLDS, REPEATS = 5, 3
C = 1.0  # inverse penalty, fixed: choosing it would need groups inside groups, and there are few
LEAST = 2  # groups of each class
ITERATIONS = 500


def why_undefined(codes: Ints, groups: Ints) -> str:
    """Why leakage of (N,) codes over (N,) groups cannot be measured, in words; empty where it can."""
    classes = np.unique(codes)
    if len(classes) < 2:
        return f"{len(classes)} class of the attribute: nothing to tell apart"
    least = min(len(np.unique(groups[codes == each])) for each in classes)
    if least < LEAST:
        return f"a class of the attribute has {least} group: none is left to learn from when it is held out"
    return ""


def leakage(
    features: NDArray[Any],
    codes: Ints,
    groups: Ints,
    seed: int,
    *,
    n_classes: int | None = None,
    repeats: int = REPEATS,
) -> F64:
    """Out-of-fold probabilities of an attribute.

    Features are standardised on the training folds; classes count alike, so that a fold's shares of them do not move
    its probabilities. Folds hold whole groups and, as far as groups allow, every class.

    Args:
        features: (N, D), frozen.
        codes: (N,) classes of the attribute, 0 to K - 1, all known.
        groups: (N,) e.g. donors; cells of one are held out together.
        seed: keys the folds.
        n_classes: K; by default the largest code and one.
        repeats: other folds to average over.

    Returns:
        (N,) probability of class 1 for two classes, else (N, K).

    Raises:
        ValueError: undefined, see `why_undefined`.
    """
    if why := why_undefined(codes, groups):
        raise ValueError(why)
    from sklearn.model_selection import StratifiedGroupKFold

    k = n_classes or int(codes.max()) + 1
    folds = min(FOLDS, *(len(np.unique(groups[codes == each])) for each in np.unique(codes)))
    total = np.zeros((len(codes), k))
    for repeat in range(repeats):
        state = key64(seed, f"leakage {repeat}") % 2**32
        cut = StratifiedGroupKFold(folds, shuffle=True, random_state=state)
        for train, test in cut.split(features, codes, groups):
            total[test] += _probabilities(features, codes, train, test, k, balanced=True)
    found: F64 = total / repeats
    return found[:, 1] if k == 2 else found


def fresh_predictions(features: NDArray[Any], codes: Ints, seed: int, folds: int = 3) -> NDArray[np.int64]:
    """(N,) out-of-fold classes of a fresh logistic regression, cell by cell: how well a label can be read at all.

    Args:
        features: (N, D), frozen.
        codes: (N,) classes, 0 to K - 1; at least two of them occur.
        seed: keys the folds.
        folds: of the cross-validation; classes with fewer cells are missing from some.
    """
    from sklearn.model_selection import KFold

    found = np.zeros(len(codes), np.int64)
    cut = KFold(folds, shuffle=True, random_state=key64(seed, "fresh") % 2**32)
    for train, test in cut.split(features):
        k = int(codes.max()) + 1
        found[test] = _probabilities(features, codes, train, test, k, balanced=False).argmax(axis=1)
    return found


def auroc(scores: NDArray[Any], codes: Ints, draws: GroupDraws) -> Resampled:
    """Area under the ROC curve with draws over groups; ties count one half.

    Args:
        scores: (N,) of class 1, or (N, K): then the mean over classes, each against the rest.
        codes: (N,) true classes.
        draws: resamples of groups; one that lacks a class has NaN.
    """
    columns = {1: scores} if scores.ndim == 1 else {each: scores[:, each] for each in np.unique(codes)}
    wins = {each: _wins(column, codes == each, draws) for each, column in columns.items()}
    sizes = {each: _per_group(codes == each, draws) for each in columns}
    everyone = _per_group(np.ones(len(codes), bool), draws)

    def statistic(weights: NDArray[Any]) -> dict[str, F64]:
        w = weights.astype(np.float64)
        areas = [
            ratios(np.einsum("bg,gh,bh->b", w, wins[each], w, optimize=True),
                   (w @ sizes[each]) * (w @ (everyone - sizes[each])))
            for each in columns
        ]  # fmt: skip
        return {"auroc": np.mean(areas, axis=0)}

    return bootstrap(draws, statistic)["auroc"]


def leakage_scores(scores: NDArray[Any], codes: Ints, draws: GroupDraws) -> dict[str, Resampled]:
    """`auroc` and `balanced_accuracy` of out-of-fold probabilities, with draws over groups.

    Args:
        scores: as `leakage` returns them.
        codes: (N,) true classes.
        draws: resamples of the groups that were held out.
    """
    predicted = (scores > 0.5).astype(np.int64) if scores.ndim == 1 else scores.argmax(axis=1)
    k = 2 if scores.ndim == 1 else scores.shape[1]
    balanced = bootstrap_scores(codes, predicted, k, draws)["balanced_accuracy"]
    return {"auroc": auroc(scores, codes, draws), "balanced_accuracy": balanced}


def _probabilities(
    features: NDArray[Any], codes: Ints, train: Ints, test: Ints, k: int, *, balanced: bool
) -> NDArray[np.float64]:
    """(n, K) probabilities of the test rows; 0 for a class that no training row has."""
    from sklearn.linear_model import LogisticRegression

    held = features[train].astype(np.float64)
    mean, deviation = held.mean(axis=0), held.std(axis=0)
    deviation[deviation == 0] = 1.0
    found = np.zeros((len(test), k))
    classes = np.unique(codes[train])
    if len(classes) == 1:
        found[:, classes[0]] = 1.0
        return found
    model = LogisticRegression(C=C, max_iter=ITERATIONS, tol=1e-3, class_weight="balanced" if balanced else None)
    model.fit((held - mean) / deviation, codes[train])
    found[:, model.classes_] = model.predict_proba((features[test] - mean) / deviation)
    return found


def _per_group(is_held: NDArray[np.bool_], draws: GroupDraws) -> F64:
    """(G,) cells of each group that are held."""
    return np.bincount(draws.codes[is_held], minlength=draws.n_groups).astype(np.float64)


def _wins(scores: NDArray[Any], is_positive: NDArray[np.bool_], draws: GroupDraws) -> F64:
    """(G, G): pairs of a positive of one group and a negative of another that are ranked rightly; ties half."""
    order = np.flatnonzero(is_positive)
    belongs = sparse.csr_array(
        (np.ones(len(order)), (draws.codes[order], np.arange(len(order)))), shape=(draws.n_groups, len(order))
    )
    wins = np.zeros((draws.n_groups, draws.n_groups))
    for group in range(draws.n_groups):
        rivals = np.sort(scores[(draws.codes == group) & ~is_positive])
        if len(rivals):
            below = np.searchsorted(rivals, scores[order], "left") + np.searchsorted(rivals, scores[order], "right")
            wins[:, group] = belongs @ (below / 2)
    return wins
