"""Whether a classifier is right as often as it says: reliability by bins of confidence, and one number for it.

Expected calibration error as in Guo et al., ICML 2017 (equations 2, 3): 15 bins of equal width, open at the left and
closed at the right, and the mean over rows of the gap between accuracy and mean confidence of their bin.
Reference implementation of the bins: sklearn.calibration.calibration_curve(strategy="uniform").
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from xfm.metrics.resampling import F64, Ints, ratios, weighted_sums

# Shapes: N rows, G groups, M bins, b resamples.
BINS = 15


class Reliability(NamedTuple):
    """Rows by confidence; each part is (M,)."""

    low: F64  # low, high: ends of the bins
    high: F64
    rows: NDArray[np.int64]
    confidence: F64  # confidence, accuracy: means of the bin; NaN where it is empty
    accuracy: F64


def reliability(confidence: NDArray[Any], is_right: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Accuracy against (N,) confidence, the probability of the predicted class, in M bins of equal width.

    Raises:
        ValueError: a confidence outside 0 to 1, or lists that differ in length.
    """
    place = bin_of(confidence, bins)
    if place.shape != is_right.shape:
        raise ValueError(f"{len(place)} confidences and {len(is_right)} outcomes do not belong together")
    count = np.bincount(place, minlength=bins)
    edges = np.linspace(0.0, 1.0, bins + 1)
    empty = np.full(bins, np.nan)
    means = [
        np.divide(np.bincount(place, values.astype(np.float64), bins), count, out=empty.copy(), where=count > 0)
        for values in (confidence, is_right)
    ]
    return Reliability(edges[:-1], edges[1:], count, *means)


def bin_of(confidence: NDArray[Any], bins: int) -> NDArray[np.int64]:
    """(N,) number of the bin (low, high] that each confidence lies in; 0 itself lies in the first one."""
    confidence = np.asarray(confidence, np.float64)
    if len(confidence) and not (confidence.min() >= 0 and confidence.max() <= 1):  # NaN fails both
        raise ValueError(f"confidences run from 0 to 1, found {confidence.min()} to {confidence.max()}")
    found = np.searchsorted(np.linspace(0.0, 1.0, bins + 1), confidence, side="left") - 1
    return np.maximum(found, 0).astype(np.int64)


def gap_sums(
    confidence: NDArray[Any], is_right: NDArray[np.bool_], codes: Ints, n_groups: int, bins: int = BINS
) -> sparse.csr_array:
    """(G, M) sums of hits minus confidences of each group's rows by bin: all that a calibration error needs."""
    gaps = is_right.astype(np.float64) - np.asarray(confidence, np.float64)
    place = (np.asarray(codes), bin_of(confidence, bins))
    return sparse.coo_array((gaps, place), shape=(n_groups, bins)).tocsr()


def weighted_error(weights: NDArray[Any], gaps: sparse.csr_array, rows: F64) -> F64:
    """(b,) calibration errors of (b, G) weights of groups, from `gap_sums` and the (b,) rows of each resample."""
    return ratios(np.abs(weighted_sums(weights, gaps)).sum(axis=1), rows)
