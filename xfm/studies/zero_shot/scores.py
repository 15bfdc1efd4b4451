"""Every score of every representation, and the zero-shot classifier set against its rivals.

Differences are paired resample by resample; p-values swap the guesses of whole groups (metrics/paired.py) and are
corrected for the number of rivals (judging/comparison.py). Nothing is chosen here: layers of the lens are shown, not
picked.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.metric import PRIMARY
from xfm.core.parts import TEST, TRAIN, VALIDATION
from xfm.core.random import rng_for
from xfm.core.report import Estimate
from xfm.judging.comparison import Comparison, compared, corrected
from xfm.judging.eval_set import EvalSet
from xfm.judging.representations import CHANCE, MAJORITY, RANDOM, Representation
from xfm.judging.score import Score, table_of
from xfm.metrics.paired import bootstrap_difference, permutation_test
from xfm.metrics.resampling import GroupDraws, Resampled, estimate
from xfm.metrics.zero_shot import bootstrap_ranked
from xfm.models.clip.prompts import Prompts
from xfm.studies.zero_shot.rows import (
    ONE_TEMPLATE,
    ZERO_SHOT,
    Guesses,
    Table,
    guess_blindly,
    guesses_of,
    representations_of,
)

TASK = "zero_shot"
CHOSEN_BY = PRIMARY["zero_shot"]
HEADS = (ZERO_SHOT, ONE_TEMPLATE)  # whose confidence means something: they use the scale that was learned for them


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of every representation."""

    judged: EvalSet  # rows, split, resamples
    prompts: Prompts  # classes
    truth: NDArray[np.int32]  # (N,) true classes, places in `prompts`

    @property
    def label(self) -> str:
        """Column of the classes."""
        return self.judged.labels[0].name

    @property
    def n_classes(self) -> int:
        """K."""
        return len(self.prompts.values)

    def test(self) -> NDArray[np.int64]:
        """Positions of the test rows."""
        return self.judged.split.where(TEST)

    def draws(self, rows: NDArray[np.int64]) -> GroupDraws:
        """Resamples of the groups of some rows."""
        return GroupDraws(self.judged.split.groups[rows], self.judged.seed, self.judged.resamples)


@dataclass(frozen=True, slots=True)
class Results:
    """What was found."""

    representations: Sequence[Representation]  # in the order of the report
    guesses: Mapping[str, Guesses]  # of the test rows, by representation
    scores: Mapping[tuple[str, str], Resampled]  # by (representation, metric), on test rows
    validation: Mapping[tuple[str, str], Resampled]  # likewise, on validation rows; empty where there are none
    groups: int  # of the test rows
    duels: Mapping[str, Comparison]  # the classifier against its rivals, by what they are
    tables: Sequence[pa.Table]  # rows of `judge.SCHEMA`

    def estimate(self, name: str, metric: str) -> Estimate | None:
        """A score with its interval, or None where it is not defined."""
        found = self.scores.get((name, metric))
        return None if found is None else estimate(*found, self.groups)

    def layers(self, place: str) -> list[Representation]:
        """The lens at every layer, of the network itself (parts) or of the random one."""
        found = [each for each in self.representations if each.layer is not None and each.place == place]
        return sorted(found, key=lambda each: each.layer or 0)


def question_of(judged: EvalSet, prompts: Prompts, values: Sequence[str | None]) -> Question:
    """Numbers the rows' classes by their place in the prompts; every row has one of them."""
    place = {value: number for number, value in enumerate(prompts.values)}
    return Question(judged, prompts, np.array([place[str(value)] for value in values], np.int32))


def score_all(question: Question, table: Table, random: Table | None, baselines: Sequence[str]) -> Results:
    """All scores.

    Args:
        random: what the same network with random weights says of them, or None.
        baselines: which of majority and chance to add.
    """
    representations = list(representations_of(table, random, baselines))
    scores: dict[tuple[str, str], Resampled] = {}
    validation: dict[tuple[str, str], Resampled] = {}
    guesses: dict[str, Guesses] = {}
    tables = []
    for each in representations:
        found: list[Score] = []
        for part, kept in ((VALIDATION, validation), (TEST, scores)):
            rows = question.judged.split.where(part)
            if not len(rows):
                continue
            own = _guesses(question, each, rows, table, random)
            if part == TEST:
                guesses[each.name] = own
            drawn = _scored(question, own, rows, with_confidence=each.name in HEADS)
            kept |= {(each.name, metric): one for metric, one in drawn.items()}
            found += _lines(question, part.word, rows, own, drawn)
        tables.append(table_of(each, iter(found)))
    duels = _duels(question, representations, guesses, scores)
    groups = question.draws(question.test()).n_groups
    return Results(representations, guesses, scores, validation, groups, duels, tables)


def _guesses(
    question: Question, each: Representation, rows: NDArray[np.int64], table: Table, random: Table | None
) -> Guesses:
    """Of some rows."""
    if each.how != "none":
        whole = guesses_of(each, table, random)
        return Guesses(whole.ranked[rows], None if whole.confidence is None else whole.confidence[rows])
    training = question.judged.split.where(TRAIN)
    known = question.truth[training if len(training) else question.test()]
    rng = rng_for(question.judged.seed, f"{each.name}\x1f{question.label}\x1f{len(rows)}")
    return guess_blindly(each.name, question.truth[rows], known, question.n_classes, rng)


def _scored(
    question: Question, own: Guesses, rows: NDArray[np.int64], *, with_confidence: bool
) -> dict[str, Resampled]:
    return bootstrap_ranked(
        question.truth[rows], own.ranked, question.n_classes, question.draws(rows),
        own.confidence if with_confidence else None,
    )  # fmt: skip


def _lines(
    question: Question, split: str, rows: NDArray[np.int64], own: Guesses, drawn: Mapping[str, Resampled]
) -> Iterator[Score]:
    n_groups = len(np.unique(question.judged.split.groups[rows]))
    predicted = own.ranked[:, 0].astype(np.int32)
    for metric, one in drawn.items():
        value = float(one.value) if np.isfinite(one.value) else None
        yield Score(
            TASK, question.label, metric, split, value, one.draws, len(rows), n_groups, "",
            predicted if split == "test" and metric == "f1" else None,
        )  # fmt: skip


def _duels(
    question: Question,
    representations: Sequence[Representation],
    guesses: Mapping[str, Guesses],
    scores: Mapping[tuple[str, str], Resampled],
) -> dict[str, Comparison]:
    last = next(each.layer for each in representations if each.name == ZERO_SHOT)
    rivals = {each.name: each.name for each in representations if each.name in (ONE_TEMPLATE, MAJORITY, CHANCE)}
    twins = [each.name for each in representations if each.place == RANDOM and each.layer == last]
    rivals |= {RANDOM: twins[0]} if twins else {}
    rows = question.test()
    truth, codes = question.truth[rows], np.unique(question.judged.split.groups[rows], return_inverse=True)[1]
    n_groups = int(codes.max()) + 1
    own, found = scores[ZERO_SHOT, CHOSEN_BY], []
    for name in rivals.values():
        other = scores[name, CHOSEN_BY]
        difference = bootstrap_difference(own.draws, other.draws, own.value, other.value, n_groups)
        rng = rng_for(question.judged.seed, f"{question.label}\x1f{ZERO_SHOT}\x1f{name}")
        first, second = (guesses[each].ranked[:, 0] for each in (ZERO_SHOT, name))
        p = permutation_test(truth, first, second, question.n_classes, codes, CHOSEN_BY, rng)
        found.append(compared(ZERO_SHOT, name, difference, p, n_groups))
    return dict(zip(rivals, corrected(found), strict=True))
