"""What a representation still says of an attribute, e.g. of a donor's sex: a fresh classifier on held-out donors.

The groups that are held out whole are the classes of the first label, where the attribute is a function of them:
whoever has seen the donor knows its sex by heart. Classes that have several values of the attribute are left out (of
cell types, and the sex of their donors, that is all of them: nothing is measured). See metrics/leakage.py.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfm.core.metric import LEAKAGE
from xfm.core.parts import TEST, VALIDATION, Part
from xfm.judging.eval_set import MISSING, EvalSet, Labels
from xfm.judging.score import Score
from xfm.metrics.leakage import evenly_apart, leakage, leakage_scores, of_one_class, why_undefined
from xfm.metrics.resampling import GroupDraws

METRICS = ("auroc", "balanced_accuracy")


def judge_leakage(vectors: NDArray[np.float32], judged: EvalSet, attribute: Labels) -> Iterator[Score]:
    """AUROC and balanced accuracy of the attribute on validation and on test rows, each cross-validated by itself.

    Args:
        vectors: (N, D).
    """
    yield from judge_probe(lambda rows, _: vectors[rows], judged, attribute, LEAKAGE, (VALIDATION, TEST))


def judge_probe(
    features: Callable[[NDArray[np.int64], Part], NDArray[Any]],
    judged: EvalSet,
    attribute: Labels,
    task: str,
    parts: Sequence[Part],
) -> Iterator[Score]:
    """As `judge_leakage`, for features that are at hand for some parts.

    Args:
        features: (n,) rows and their part to (n, D) frozen features.
        attribute: what is read, over held-out classes of the first label.
    """
    label = judged.labels[0]
    known = np.flatnonzero((label.codes != MISSING) & (attribute.codes != MISSING))
    usable = np.zeros(len(label.codes), bool)
    usable[known] = of_one_class(attribute.codes[known], label.codes[known])
    several = len(np.unique(label.codes[known[~usable[known]]]))
    left = f"; {several} of several {attribute.name} values left out" * (several > 0)
    for part in parts:
        rows = evenly_apart(np.flatnonzero(usable & (judged.split.parts == part)))
        codes, groups = attribute.codes[rows], label.codes[rows]
        where = (task, attribute.name)
        if why := why_undefined(codes, groups):
            for metric in METRICS:
                yield Score(*where, metric, part.word, None, None, len(rows), len(np.unique(groups)), why + left)
            continue
        draws = GroupDraws(groups, judged.seed, judged.resamples)
        read = leakage(features(rows, part), codes, groups, judged.seed, n_classes=len(attribute.classes))
        note = f"cross-validated over whole {label.name}s{left}"
        for metric, one in leakage_scores(read, codes, draws).items():
            value = float(one.value) if np.isfinite(one.value) else None
            yield Score(*where, metric, part.word, value, one.draws, len(rows), draws.n_groups, note)
