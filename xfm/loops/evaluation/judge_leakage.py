"""What a representation still says of an attribute, e.g. of a donor's sex: a fresh classifier on held-out donors.

The groups that are held out whole are the classes of the first label, because the attribute is a function of them:
whoever has seen the donor knows its sex by heart. See metrics/leakage.py.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from xfm.loops.evaluation.judge import Score
from xfm.loops.evaluation.judged import MISSING, Judged, Labels
from xfm.loops.evaluation.split import PARTS, TEST, VALIDATION
from xfm.metrics.leakage import leakage, leakage_scores, why_undefined
from xfm.metrics.resampling import GroupDraws

LEAKAGE = "leakage"
METRICS = ("auroc", "balanced_accuracy")
PROBED = 2000  # rows that a fresh classifier is fitted on at most, evenly apart


def judge_leakage(vectors: NDArray[np.float32], judged: Judged, attribute: Labels) -> Iterator[Score]:
    """AUROC and balanced accuracy of the attribute on validation and on test rows, each cross-validated by itself.

    Args:
        vectors: (N, D).
        judged: rows, first label, split.
        attribute: what should not be told.
    """
    label = judged.labels[0]
    for part in (VALIDATION, TEST):
        known = (label.codes != MISSING) & (attribute.codes != MISSING) & (judged.split.parts == part)
        rows = _some(np.flatnonzero(known))
        codes, groups = attribute.codes[rows], label.codes[rows]
        if why := why_undefined(codes, groups):
            for metric in METRICS:
                n_groups = len(np.unique(groups))
                yield Score(LEAKAGE, attribute.name, metric, PARTS[part], None, None, len(rows), n_groups, why)
            continue
        draws = GroupDraws(groups, judged.seed, judged.resamples)
        read = leakage(vectors[rows], codes, groups, judged.seed, n_classes=len(attribute.classes))
        for metric, one in leakage_scores(read, codes, draws).items():
            value = float(one.value) if np.isfinite(one.value) else None
            yield Score(
                LEAKAGE, attribute.name, metric, PARTS[part], value, one.draws, len(rows), draws.n_groups,
                f"cross-validated over whole {label.name}s",
            )  # fmt: skip


def _some(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows if len(rows) <= PROBED else rows[np.linspace(0, len(rows) - 1, PROBED).astype(np.int64)]
