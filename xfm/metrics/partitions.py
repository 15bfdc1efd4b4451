"""How far two partitions of the same cells agree: NMI and ARI, of one contingency table or of many at once.

Both follow from three lists of counts alone: cells in each pair of classes, in each class of the one partition, in each
class of the other. Their order does not matter, and empty ones change nothing.

Reference implementations: sklearn.metrics normalized_mutual_info_score (arithmetic mean, as scib) and
adjusted_rand_score (Hubert and Arabie, J Classif 1985).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfm.metrics.regression import ratios

# Shapes: L classes of one partition, K of the other, P pairs of them. "..." are resamples, or nothing.
F64 = NDArray[np.float64]
ROUNDING = 1e-13  # nats; less mutual information is none


def nmi_of_counts(joint: NDArray[Any], first: NDArray[Any], second: NDArray[Any]) -> F64:
    """NMI from (..., P) counts of pairs, (..., L) of one partition and (..., K) of the other.

    Two partitions of one class each agree (1); one class against several says nothing (0).
    """
    total = _entropy(first) + _entropy(second)
    mutual = total - _entropy(joint)
    mutual = np.where(mutual < ROUNDING, 0.0, mutual)
    both_whole = ((first > 0).sum(axis=-1) == 1) & ((second > 0).sum(axis=-1) == 1)
    return np.where(both_whole, 1.0, ratios(2 * mutual, total))


def ari_of_counts(joint: NDArray[Any], first: NDArray[Any], second: NDArray[Any]) -> F64:
    """ARI from (..., P) counts of pairs, (..., L) of one partition and (..., K) of the other."""
    cells = joint.sum(axis=-1, dtype=np.float64)
    squares = [np.square(counts, dtype=np.float64).sum(axis=-1) for counts in (joint, first, second)]
    # Ordered pairs of cells: together in both partitions, in the first only, in the second only, in neither.
    both = squares[0] - cells
    only_first, only_second = squares[1] - squares[0], squares[2] - squares[0]
    neither = cells**2 - cells - both - only_first - only_second
    top = 2 * (both * neither - only_first * only_second)
    bottom = (both + only_first) * (only_first + neither) + (both + only_second) * (only_second + neither)
    is_same = (only_first == 0) & (only_second == 0) & (cells > 0)
    return np.where(is_same, 1.0, ratios(top, bottom))


def _entropy(counts: NDArray[Any]) -> F64:
    """Entropy in nats of (..., K) counts; NaN for no count at all."""
    shares = ratios(counts, np.broadcast_to(counts.sum(axis=-1, keepdims=True), counts.shape))
    logs = np.log(shares, out=np.zeros(shares.shape), where=shares != 0)
    return -np.asarray((shares * logs).sum(axis=-1))
