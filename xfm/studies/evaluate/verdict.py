"""Which layer was chosen, and whether it beats the last layer and the baselines beyond noise.

The layer is chosen by macro F1 of a linear classifier, the probe or the SVM, on validation rows. On test rows every
layer is set against every rival: the last layer and each baseline. Intervals of differences come from shared resamples
of groups; p-values from swapping the predictions of whole groups, corrected for the number of layers by Holm's
procedure, rival by rival.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.metric import PRIMARY
from xfm.core.random import rng_for
from xfm.core.report import Estimate
from xfm.judging.eval_set import EvalSet, Labels
from xfm.judging.representations import RANDOM, UNSEEING, Representation
from xfm.judging.row_noun import ROWS
from xfm.metrics.paired import bootstrap_difference, holm, permutation_test
from xfm.studies.evaluate.baselines import EXPRESSION

CHOSEN_BY = PRIMARY["probe"]
PERMUTATIONS = 9999
ALPHA = 0.05
LAST = "last layer"
COMBINATION = "combination"


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """One score of the finished table."""

    value: float | None
    low: float | None
    high: float | None
    cells: int
    groups: int
    note: str
    draws: NDArray[np.float64]
    predicted: NDArray[np.int32] | None

    @property
    def estimate(self) -> Estimate | float | None:
        """The value with its interval, where it has one."""
        if self.value is None or self.low is None or self.high is None:
            return self.value
        return Estimate(value=self.value, low=self.low, high=self.high)


class Scores:
    """All scores of all representations, found by (representation, task, label, metric, split).

    Args:
        tables: of `judge.SCHEMA`.
        representations: in the order of the report.
        by: the classifier that chooses and speaks: probe or svm.
    """

    def __init__(
        self, tables: Iterable[pa.Table], representations: Sequence[Representation], by: str = "probe"
    ) -> None:
        self.by = by
        self.rows: dict[tuple[str, str, str, str, str], VerdictRow] = {}
        for table in tables:
            for row in table.to_pylist():
                key = (row["representation"], row["task"], row["label"], row["metric"], row["split"])
                predicted = None if row["predicted"] is None else np.asarray(row["predicted"], np.int32)
                self.rows[key] = VerdictRow(
                    row["value"], row["low"], row["high"], row["cells"], row["groups"], row["note"],
                    np.asarray(row["draws"], np.float64), predicted,
                )  # fmt: skip
        judged = {key[0] for key in self.rows}
        self.representations = [each for each in representations if each.name in judged]

    def get(self, name: str, task: str, label: str, metric: str, split: str) -> VerdictRow | None:
        """A score, or None where it was not computed."""
        return self.rows.get((name, task, label, metric, split))

    def primary(self, name: str, label: str, split: str) -> VerdictRow | None:
        """Macro F1 of the classifier that chooses."""
        return self.get(name, self.by, label, CHOSEN_BY, split)

    def of_kind(self, kind: str, label: str) -> list[Representation]:
        """Representations with a primary score for a label."""
        found = (each for each in self.representations if each.kind == kind)
        return [each for each in found if self.primary(each.name, label, "validation") is not None]

    def best(self, names: Iterable[Representation], label: str) -> Representation | None:
        """The best of some on validation; the earlier one where two are equal."""
        best: tuple[float, Representation] | None = None
        for each in names:
            row = self.primary(each.name, label, "validation")
            if row is not None and row.value is not None and (best is None or row.value > best[0]):
                best = (row.value, each)
        return None if best is None else best[1]


@dataclass(frozen=True, slots=True)
class Duel:
    """A layer against a rival, on test rows."""

    layer: str
    rival: str
    difference: Estimate  # of macro F1, layer minus rival
    p: float  # two-sided, corrected for the number of layers
    # what p would be if every swap of groups made the difference smaller: few groups allow few swaps
    least_p: float = 0.0

    @property
    def is_better(self) -> bool:
        """Beyond noise."""
        return self.p < ALPHA and self.difference.value > 0

    @property
    def is_worse(self) -> bool:
        """Beyond noise."""
        return self.p < ALPHA and self.difference.value < 0

    @property
    def is_untestable(self) -> bool:
        """Whether no difference, however large, could be told from noise."""
        return self.least_p >= ALPHA


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found for one label."""

    label: str
    chosen: Representation  # the layer that did best on validation rows
    # the last layer that was judged; where it has several poolings, the better one on validation. None where
    # representations have no numbers, or where there is one only.
    last: Representation | None
    is_last: bool  # whether it is the last one of those stored
    # name of the representation by what it stands for: last layer, majority, hvg, pca, random, scvi, and the
    # combination of layers that is best on validation
    rivals: Mapping[str, str]
    duels: Mapping[tuple[str, str], Duel]  # by (layer, what the rival stands for)
    layers: int  # how many were tested against each rival
    by: str = "probe"  # the classifier that chose and speaks: probe or svm
    noun: str = ROWS  # what rows are called

    def duel(self, rival: str) -> Duel | None:
        """The chosen layer against a rival; None against itself."""
        return self.duels.get((self.chosen.name, rival))


def judge_label(scores: Scores, judged: EvalSet, label: Labels, deepest: int | None = None) -> Verdict | None:
    """Chooses and compares; None where no layer could be scored.

    Args:
        deepest: number of the last layer that is stored, whether or not it was judged; None for the last one judged.
    """
    layers = scores.of_kind("layer", label.name)
    chosen = scores.best(layers, label.name)
    if chosen is None:
        return None
    numbers = {each.layer for each in layers if each.layer is not None}
    judged_last = max(numbers) if len(numbers) > 1 else None
    last = scores.best([each for each in layers if each.layer is not None and each.layer == judged_last], label.name)
    combination = scores.best(scores.of_kind("combination", label.name), label.name)
    rivals = {LAST: last.name} if last is not None else {}
    rivals |= _baselines(scores, label.name)
    rivals |= {COMBINATION: combination.name} if combination is not None else {}
    duels: dict[tuple[str, str], Duel] = {}
    for what, rival in rivals.items():
        against = [each for each in layers if each.name != rival]
        for each, duel in zip(against, _duels(scores, judged, label, against, rival), strict=True):
            duels[each.name, what] = duel
    is_last = deepest is None or judged_last == deepest
    return Verdict(label.name, chosen, last, is_last, rivals, duels, len(layers), scores.by, judged.noun)


def _baselines(scores: Scores, label: str) -> dict[str, str]:
    """One a kind; of random networks the best layer on validation, as for the trained one."""
    found = scores.of_kind("baseline", label)
    named = [each.name for each in found if each.place != RANDOM]
    ordered = {name: name for name in (*UNSEEING, *EXPRESSION) if name in named} | {name: name for name in named}
    random = scores.best([each for each in found if each.place == RANDOM], label)
    return ordered | ({RANDOM: random.name} if random else {})


def _duels(scores: Scores, judged: EvalSet, label: Labels, layers: Sequence[Representation], rival: str) -> list[Duel]:
    cells = judged.test_cells(label)
    truth, groups = label.codes[cells], judged.split.groups[cells]
    codes = np.unique(groups, return_inverse=True)[1]
    other = scores.primary(rival, label.name, "test")
    differences, p_values = [], []
    for layer in layers:
        own = scores.primary(layer.name, label.name, "test")
        if own is None or other is None or own.predicted is None or other.predicted is None:
            raise ValueError(f"{layer.name} and {rival} must both have predictions of {label.name}")
        assert own.value is not None
        assert other.value is not None
        difference = bootstrap_difference(own.draws, other.draws, own.value, other.value)
        differences.append(Estimate(value=difference.value, low=difference.low, high=difference.high))
        rng = rng_for(judged.seed, f"{label.name}\x1f{layer.name}\x1f{rival}")
        p_values.append(
            permutation_test(
                truth, own.predicted, other.predicted, len(label.classes), codes, CHOSEN_BY, rng, PERMUTATIONS
            )
        )
    adjusted = holm(np.array(p_values))
    # Swapping all groups turns a difference round, swapping none keeps it: two swaps of 2**G are always as extreme.
    n_groups = int(codes.max()) + 1
    least = min(1.0, max(2.0 ** (1 - n_groups), 1 / PERMUTATIONS) * len(layers))
    return [
        Duel(layer.name, rival, difference, float(p), least)
        for layer, difference, p in zip(layers, differences, adjusted, strict=True)
    ]
