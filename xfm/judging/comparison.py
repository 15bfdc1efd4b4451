"""Whether one thing beats another: the only place where a difference, its p-value and its groups become a word.

Four words there are. `beats` and `worse` need p < ALPHA after correction for the tests of the same family. `not told
apart` means that a difference could have been found and was not. `not testable` means that no difference, however
large, could have been told from luck: it says how many groups or seeds that would take.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from xfm.core.report import Estimate
from xfm.metrics.paired import Difference, holm, least_p

ALPHA = 0.05
BEATS, WORSE, EVEN, UNTESTABLE = "beats", "worse", "not told apart", "not testable"
SEEDS = 2  # of a training, below which nothing is known of how its luck varies
FEW_GROUPS = 12  # below which intervals are said to be rough
MOST_GROUPS = 64  # beyond which more groups make no p smaller


@dataclass(frozen=True, slots=True)
class Comparison:
    """One thing minus a rival, on the same rows."""

    name: str
    rival: str
    difference: Estimate
    p: float  # two-sided, corrected; NaN where no test could be made
    groups: int  # that were compared
    tests: int = 1  # in the family that p is corrected for
    seeds: int | None = None  # of the training that it rests on; None where nothing was trained
    lower_is_better: bool = False

    @property
    def verdict(self) -> str:
        """BEATS, WORSE, EVEN or UNTESTABLE."""
        if self.needs:
            return UNTESTABLE
        if self.p >= ALPHA:
            return EVEN
        return BEATS if (self.difference.value > 0) != self.lower_is_better else WORSE

    @property
    def needs(self) -> str:
        """What a test would take, e.g. "6 groups"; empty where one was possible."""
        if self.seeds is not None and self.seeds < SEEDS:
            return f"{SEEDS} seeds or more"
        if least_p(self.groups) * self.tests >= ALPHA:
            enough = groups_needed(self.tests)
            return f"{enough} groups" if enough else f"fewer than {self.tests:,} tests at once"
        return f"an interval: {self.difference.why}" if np.isnan(self.p) else ""

    @property
    def words(self) -> str:
        """The verdict for a table; what is not testable says what it would take."""
        return f"{UNTESTABLE}: takes {self.needs}" if self.needs else self.verdict


def compared(name: str, rival: str, difference: Difference, p: float, groups: int) -> Comparison:
    """One test, not corrected yet."""
    found = Estimate(value=difference.value, low=difference.low, high=difference.high, why=difference.why)
    return Comparison(name, rival, found, p, groups)


def corrected(family: Sequence[Comparison]) -> list[Comparison]:
    """The same tests with p corrected for their number (Holm). What has no p is no test and does not count."""
    adjusted = holm(np.array([each.p for each in family]))
    tests = max(1, int(np.isfinite(adjusted).sum()))
    return [replace(each, p=float(p), tests=tests) for each, p in zip(family, adjusted, strict=True)]


def groups_needed(tests: int) -> int | None:
    """The fewest groups with which one of so many tests could come out; None where no number of groups is enough."""
    return next((groups for groups in range(1, MOST_GROUPS) if least_p(groups) * tests < ALPHA), None)


def few_groups(groups: int) -> str:
    """What to know of intervals and tests over so few groups; empty where they are many."""
    if groups >= FEW_GROUPS:
        return ""
    return (
        f"Only {groups} group{'s are' if groups != 1 else ' is'} in the test: intervals are wide and rough, and no "
        f"p-value can be below {least_p(groups):.2g} before correction."
    )
