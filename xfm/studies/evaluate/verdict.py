"""Which layer was chosen, and whether it beats the last layer and the baselines beyond noise.

The layer is chosen by macro F1 of a linear classifier, the probe or the SVM, on validation rows. On test rows every
layer is set against every rival: the last layer and each baseline. Intervals of differences come from shared resamples
of groups; p-values from swapping the predictions of whole groups. What is asked beforehand is one question: the chosen
layer against the last one, which is not corrected. The baselines beside the chosen layer are one family (Holm), and all
layers against one rival another, for who asks which layers do better.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.metric import PRIMARY
from xfm.core.random import rng_for
from xfm.core.report import Estimate
from xfm.judging.comparison import Comparison, compared, corrected
from xfm.judging.eval_set import EvalSet, Labels
from xfm.judging.representations import RANDOM, UNSEEING, Representation
from xfm.judging.row_noun import ROWS
from xfm.judging.score import stored_estimate
from xfm.metrics.paired import bootstrap_difference, permutation_test
from xfm.studies.evaluate.baselines import EXPRESSION

CHOSEN_BY = PRIMARY["probe"]
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
        return stored_estimate(self.value, self.low, self.high, self.draws, self.groups)


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
    duels: Mapping[str, Comparison]  # of the chosen layer, by what the rival stands for; none against itself
    by_layer: Mapping[tuple[str, str], Comparison]  # by (layer, what the rival stands for), corrected over the layers
    layers: int  # how many were tested against each rival
    by: str = "probe"  # the classifier that chose and speaks: probe or svm
    noun: str = ROWS  # what rows are called


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
    raw: dict[tuple[str, str], Comparison] = {}
    by_layer: dict[tuple[str, str], Comparison] = {}
    for what, rival in rivals.items():
        found = _tested(scores, judged, label, [each for each in layers if each.name != rival], rival)
        raw |= {(each.name, what): each for each in found}
        by_layer |= {(each.name, what): each for each in corrected(found)}
    duels = {what: raw[chosen.name, what] for what in rivals if (chosen.name, what) in raw}
    others = [what for what in duels if what != LAST]
    duels |= dict(zip(others, corrected([duels[what] for what in others]), strict=True))
    is_last = deepest is None or judged_last == deepest
    return Verdict(label.name, chosen, last, is_last, rivals, duels, by_layer, len(layers), scores.by, judged.noun)


def _baselines(scores: Scores, label: str) -> dict[str, str]:
    """One a kind; of random networks the best layer on validation, as for the trained one."""
    found = scores.of_kind("baseline", label)
    named = [each.name for each in found if each.place != RANDOM]
    ordered = {name: name for name in (*UNSEEING, *EXPRESSION) if name in named} | {name: name for name in named}
    random = scores.best([each for each in found if each.place == RANDOM], label)
    return ordered | ({RANDOM: random.name} if random else {})


def _tested(
    scores: Scores, judged: EvalSet, label: Labels, layers: Sequence[Representation], rival: str
) -> list[Comparison]:
    """Every layer against a rival on test rows, not corrected."""
    cells = judged.test_cells(label)
    truth, groups = label.codes[cells], judged.split.groups[cells]
    codes = np.unique(groups, return_inverse=True)[1]
    n_groups = int(codes.max()) + 1
    other = scores.primary(rival, label.name, "test")
    found = []
    for layer in layers:
        own = scores.primary(layer.name, label.name, "test")
        if own is None or other is None or own.predicted is None or other.predicted is None:
            raise ValueError(f"{layer.name} and {rival} must both have predictions of {label.name}")
        assert own.value is not None
        assert other.value is not None
        difference = bootstrap_difference(own.draws, other.draws, own.value, other.value, n_groups)
        rng = rng_for(judged.seed, f"{label.name}\x1f{layer.name}\x1f{rival}")
        p = permutation_test(truth, own.predicted, other.predicted, len(label.classes), codes, CHOSEN_BY, rng)
        found.append(compared(layer.name, rival, difference, p, n_groups))
    return found
