"""What frozen features still say of an attribute: a fresh logistic regression, judged on groups it never saw.

An adversary's own loss is no evidence: it may be weak, or broken. A new classifier is fitted after training, as for the
invariance of representations (Elazar and Goldberg, EMNLP 2018, section 4), and cross-validated over whole groups:
where an attribute is a function of the donor, a classifier that has seen the donor answers by heart.

Scores of classifiers that were fitted on other groups cannot be ranked together: leaving a group out moves the mean of
its class away from it, so that an AUROC over all folds falls below one half where nothing leaks (to .45 with fourteen
uneven donors and one feature; Airola et al., Comput. Stat. Data Anal. 2011, on leave-pair-out). Here a positive and a
negative are compared only where they were held out together, by the same classifier. Without leakage groups that were
held out are exchangeable, and the expectation is one half. What lies below it is noise, and few groups make much of it:
with twenty donors the AUROC has a standard deviation of .12 around it, with fourteen .16, with six .23.

Reference implementation: sklearn.metrics.roc_auc_score of each fold, one class against the rest.
"""

# Shapes: N cells, D features, K classes, G groups, R repeats, B resamples.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import t

from xfm.core.random import key64, rng_for
from xfm.metrics.resampling import F64, GroupDraws, Ints, Resampled, bootstrap, percentile_interval, ratios

FOLDS, REPEATS = 5, 5
C = 1.0  # inverse penalty, fixed: choosing it would need groups inside groups, and there are few
LEAST = 2  # groups of each class
PROBED = 2000  # rows that a fresh classifier is fitted on, at most
ITERATIONS = 500


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """What classifiers say of cells that they were not fitted on, several times over."""

    probabilities: F64  # (R, N, K) of each class
    folds: NDArray[np.int64]  # (R, N) with which cells each was held out: those of one number met the same classifier


def evenly_apart(rows: NDArray[np.int64], most: int = PROBED) -> NDArray[np.int64]:
    """At most so many of the rows."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def of_one_class(codes: Ints, groups: Ints) -> NDArray[np.bool_]:
    """(N,) whether all cells of a cell's group are of one class: only then holding groups out holds classes out.

    Groups of several classes, e.g. cell types with cells of both sexes, share their donors with other groups: who has
    seen those knows the donors by heart.
    """
    found, place = np.unique(groups, return_inverse=True)
    pairs = np.unique(np.stack([place, codes]), axis=1)
    single: NDArray[np.bool_] = (np.bincount(pairs[0], minlength=len(found)) == 1)[place]
    return single


def why_undefined(codes: Ints, groups: Ints) -> str:
    """Why leakage of (N,) codes over (N,) groups cannot be measured, in words; empty where it can."""
    classes = np.unique(codes)
    if len(classes) < 2:
        return f"{len(classes)} class of the attribute: nothing to tell apart"
    if not (single := of_one_class(codes, groups)).all():
        return f"{len(np.unique(groups[~single]))} groups have several classes of the attribute"
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
) -> OutOfFold:
    """Out-of-fold probabilities of an attribute.

    Features are standardised on the training folds; classes count alike, so that a fold's shares of them do not move
    its probabilities. Every fold holds whole groups, and at least one of each class.

    Args:
        features: (N, D), frozen.
        codes: (N,) classes of the attribute, 0 to K - 1, all known.
        groups: (N,) e.g. donors, each of one class; cells of one are held out together.
        n_classes: K; by default the largest code and one.
        repeats: R, other folds each time.

    Raises:
        ValueError: undefined, see `why_undefined`.
    """
    if why := why_undefined(codes, groups):
        raise ValueError(why)
    k = n_classes or int(codes.max()) + 1
    probabilities, folds = np.zeros((repeats, len(codes), k)), np.zeros((repeats, len(codes)), np.int64)
    for repeat in range(repeats):
        folds[repeat] = _dealt(codes, groups, seed, repeat)
        for fold in np.unique(folds[repeat]):
            train, test = np.flatnonzero(folds[repeat] != fold), np.flatnonzero(folds[repeat] == fold)
            probabilities[repeat, test] = _probabilities(features, codes, train, test, k, balanced=True)
    return OutOfFold(probabilities, folds)


def fresh_predictions(features: NDArray[Any], codes: Ints, seed: int, folds: int = 3) -> NDArray[np.int64]:
    """(N,) out-of-fold classes of a fresh logistic regression, cell by cell: how well a label can be read at all.

    Of the classes, 0 to K - 1, at least two occur. Folds are no more than N; classes with fewer cells are missing from
    some.
    """
    from sklearn.model_selection import KFold

    found = np.zeros(len(codes), np.int64)
    cut, k = KFold(folds, shuffle=True, random_state=key64(seed, "fresh") % 2**32), int(codes.max()) + 1
    for train, test in cut.split(features):
        found[test] = _probabilities(features, codes, train, test, k, balanced=False).argmax(axis=1)
    return found


def auroc(read: OutOfFold, codes: Ints, draws: GroupDraws) -> Resampled:
    """Area under the ROC curve over pairs that were held out together, with draws over groups; ties count one half.

    Of more than two of the (N,) true classes it is the mean of each against the rest. A resample without such a pair
    has NaN.
    """
    classes = np.unique(codes)
    # Of two classes, one against the other is the same either way round.
    positives = classes[1:] if len(classes) == 2 else classes
    pairs = [_pairs(read, each, codes == each, draws) for each in positives]

    def statistic(weights: NDArray[Any]) -> dict[str, F64]:
        w = weights.astype(np.float64)
        areas = [ratios(*(np.einsum("bg,bg->b", w @ each, w) for each in both)) for both in pairs]
        return {"auroc": np.mean(areas, axis=0)}

    return bootstrap(draws, statistic)["auroc"]


def area_error(area: float, positives: int, negatives: int) -> float:
    """Standard error of an area under the ROC curve of so many independent scores (Hanley and McNeil, 1982).

    Taken one error of chance nearer to one half than the area was found: of few scores the area itself may be luck.
    """
    chance = np.sqrt((positives + negatives + 1) / (12 * positives * negatives))
    above = max(0.5, max(area, 1 - area) - chance)
    both, one = above / (2 - above), 2 * above**2 / (1 + above)
    spread = above * (1 - above) + (positives - 1) * (both - above**2) + (negatives - 1) * (one - above**2)
    return float(np.sqrt(spread / (positives * negatives)))


def share_error(share: float, groups: Sequence[int]) -> float:
    """Standard error of a mean over classes of the share that is told rightly, each class of so many independent
    answers; taken one error of chance nearer to chance, as for `area_error`."""
    chance = 1 / len(groups)

    def error(p: float) -> float:
        return float(np.sqrt(sum(p * (1 - p) / each for each in groups)) / len(groups))

    return error(max(chance, share - error(chance)))


def _widened(found: Resampled, least: float, draws: GroupDraws) -> Resampled:
    """Draws about their score whose 95 % interval is at least that of an error."""
    low, high = percentile_interval(found.draws[:, None])[:, 0]
    width = 2 * t.ppf(0.975, max(draws.effective - 1, 1.0)) * least
    if not np.isfinite(low) or not 0 < high - low < width:
        return found
    return found._replace(draws=found.value + (found.draws - found.value) * width / (high - low))


def leakage_scores(read: OutOfFold, codes: Ints, draws: GroupDraws) -> dict[str, Resampled]:
    """`auroc`, and `balanced_accuracy`: the mean over classes of the share of cells told rightly, over all repeats.

    Both are chance, 1/2 and 1/K, where nothing leaks: each fold is read by one classifier, and has every class.

    Draws vary the groups that are scored and keep what the classifiers said; fitted on other groups they had said
    something else. Draws are therefore widened to the error of as many independent answers as there are groups, each
    of one class, which is how widely both scatter over data sets without leakage.
    """
    is_right = (read.probabilities.argmax(axis=2) == codes).mean(axis=0)
    classes = np.unique(codes)
    hits = np.stack([_per_group(is_right * (codes == each), draws) for each in classes], axis=1)
    sizes = np.stack([_per_group(1.0 * (codes == each), draws) for each in classes], axis=1)

    def statistic(weights: NDArray[Any]) -> dict[str, F64]:
        w = weights.astype(np.float64)
        return {"balanced_accuracy": ratios(w @ hits, w @ sizes).mean(axis=1)}

    area, share = auroc(read, codes, draws), bootstrap(draws, statistic)["balanced_accuracy"]
    groups = [len(np.unique(draws.codes[codes == each])) for each in classes]
    least = max(area_error(area.value, each, draws.n_groups - each) for each in groups)
    return {
        "auroc": _widened(area, least, draws),
        "balanced_accuracy": _widened(share, share_error(share.value, groups), draws),
    }


def _dealt(codes: Ints, groups: Ints, seed: int, repeat: int) -> NDArray[np.int64]:
    """(N,) fold of each cell: the groups of a class are shuffled and dealt in turn, so that each fold has every class.

    StratifiedGroupKFold deals groups by their sizes: where these differ, every seed has the same folds.
    """
    found, first, place = np.unique(groups, return_index=True, return_inverse=True)
    of_class, fold = codes[first], np.zeros(len(found), np.int64)
    classes = np.unique(of_class)
    folds = min(FOLDS, *(int((of_class == each).sum()) for each in classes))
    for each in classes:
        mine = np.flatnonzero(of_class == each)
        order = rng_for(seed, f"leakage {repeat} class {each}").permutation(len(mine))
        fold[mine[order]] = np.arange(len(mine)) % folds
    dealt: NDArray[np.int64] = fold[place]
    return dealt


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


def _per_group(values: NDArray[Any], draws: GroupDraws) -> F64:
    """(G,) sums of (N,) values of the cells of each group."""
    return np.bincount(draws.codes, weights=values, minlength=draws.n_groups).astype(np.float64)


def _pairs(read: OutOfFold, column: int, is_positive: NDArray[np.bool_], draws: GroupDraws) -> tuple[F64, F64]:
    """(G, G) pairs of a positive of one group and a negative of another that were held out together and are ranked
    rightly, ties half, and (G, G) all such pairs; summed over repeats."""
    wins, pairs = np.zeros((draws.n_groups, draws.n_groups)), np.zeros((draws.n_groups, draws.n_groups))
    for probabilities, folds in zip(read.probabilities, read.folds, strict=True):
        for fold in np.unique(folds):
            held = folds == fold
            wins += _wins(probabilities[:, column], held & is_positive, held & ~is_positive, draws)
            pairs += np.outer(_per_group(held & is_positive, draws), _per_group(held & ~is_positive, draws))
    return wins, pairs


def _wins(scores: F64, is_positive: NDArray[np.bool_], is_negative: NDArray[np.bool_], draws: GroupDraws) -> F64:
    """(G, G): pairs of a positive of one group and a negative of another that are ranked rightly; ties half."""
    order = np.flatnonzero(is_positive)
    places = draws.codes[order], np.arange(len(order))
    belongs = sparse.csr_array((np.ones(len(order)), places), shape=(draws.n_groups, len(order)))
    wins = np.zeros((draws.n_groups, draws.n_groups))
    for group in np.unique(draws.codes[is_negative]):
        rivals = np.sort(scores[(draws.codes == group) & is_negative])
        below = np.searchsorted(rivals, scores[order], "left") + np.searchsorted(rivals, scores[order], "right")
        wins[:, group] = belongs @ (below / 2)
    return wins
