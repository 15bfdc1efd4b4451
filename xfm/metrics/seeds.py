"""The luck of training beside the luck of rows: a mean over seeds whose draws hold both.

A seed draws weights, the order of rows, and in some jobs the split. One run says nothing of how much that matters, so a
difference between two runs may be that of their seeds. With S seeds the mean has the error of their spread,
sd / sqrt S, on S - 1 degrees of freedom, beside that of the rows (random effects of seed and of group; Searle, Casella
and McCulloch, Variance Components, 1992).
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import t

from xfm.core.random import rng_for
from xfm.metrics.resampling import F64, Resampled

# Shapes: S seeds, B draws.


def mean_over_seeds(values: Sequence[float], draws: Sequence[F64]) -> Resampled:
    """The mean of S scores with (B,) draws of each; S of one makes no spread."""
    return Resampled(float(np.mean(values)), with_spread(np.mean(draws, axis=0), [values]))


def with_spread(draws: F64, sides: Sequence[Sequence[float]]) -> F64:
    """(B,) draws with the luck of seeds added.

    Args:
        sides: what each seed scored, for each of the means that a difference is made of: their errors add up, with the
            degrees of freedom of the smallest one. A side of one seed adds nothing: its spread is not known.
    """
    several = [side for side in sides if len(side) > 1]
    error = float(np.sqrt(sum(np.var(side, ddof=1) / len(side) for side in several)))
    if not error:
        return draws
    freedom = min(map(len, several)) - 1
    places = rng_for(0, f"seeds {freedom}").permutation(len(draws))
    found: F64 = draws + error * t.ppf((places + 0.5) / len(draws), freedom)
    return found
