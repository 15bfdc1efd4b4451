"""What a zero-shot job says in words: no claim that its interval and its corrected p-value do not carry."""

from collections.abc import Iterator, Sequence

import numpy as np

from xfm.core.report import Estimate
from xfm.judging.comparison import ALPHA, few_groups
from xfm.judging.representations import RANDOM
from xfm.models.clip.prompts import ONE_TEMPLATE as TEMPLATE
from xfm.studies.evaluate.headline import RIVALS as COMMON
from xfm.studies.evaluate.headline import sentence_of
from xfm.studies.zero_shot.rows import ONE_TEMPLATE, ZERO_SHOT
from xfm.studies.zero_shot.scores import CHOSEN_BY, Question, Results

RIVALS = dict(COMMON) | {ONE_TEMPLATE: f"the one template “{TEMPLATE}”", RANDOM: "the same network with random weights"}


def headline(question: Question, results: Results) -> str:
    """One sentence."""
    rows, noun = len(question.test()), question.judged.noun
    own = results.estimate(ZERO_SHOT, CHOSEN_BY)
    assert own is not None
    top = results.estimate(ZERO_SHOT, "acc5")
    said = f"the right one of {question.n_classes:,} classes of {question.label} is the first guess for {shown(own)}"
    said += f" and among the first five for {shown(top)}" if top else ""
    return f"Zero-shot, {said} of {rows:,} {noun}; {_against(results)}."


def _against(results: Results) -> str:
    if not results.duels:
        return "no baseline stands beside it"
    return f"it {sentence_of({RIVALS.get(what, what): duel for what, duel in results.duels.items()})}"


def cautions(question: Question, results: Results, group: str | None) -> Iterator[str]:
    """What to know before believing the numbers."""
    judged, noun = question.judged, question.judged.noun
    rows = question.test()
    n_groups = len(np.unique(judged.split.groups[rows]))
    if group is None:
        yield f"No --group was named: intervals resample single {noun}, and are too narrow where {noun} hang together."
    elif few := few_groups(n_groups):
        yield few
    support = np.bincount(question.truth[rows], minlength=question.n_classes)
    unseen = [question.prompts.names[number] for number in np.flatnonzero(support == 0)]
    if unseen:
        yield (
            f"No {noun.removesuffix('s')} is of {listed(unseen[:8])}"
            + (f" or {len(unseen) - 8} more classes" if len(unseen) > 8 else "")
            + "; such a class can be guessed, and enters no mean over classes."
        )
    error = results.estimate(ZERO_SHOT, "ece")
    own = results.estimate(ZERO_SHOT, CHOSEN_BY)
    if error is not None and own is not None and error.value > 0.1:
        yield f"Confidences are off by {error.value:.2f} on average: read them as an order, not as probabilities."
    yield (
        "The lens reads a middle layer by the last layer's normalisation and projection: what it finds there is a "
        "lower bound. How much a layer holds is for `jobs/evaluate.py` to say, with classifiers fitted to each layer."
    )


def shown(estimate: Estimate) -> str:
    """98.5 % [97.9, 99.0]."""
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.value:.1f} %"
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def listed(words: Sequence[str]) -> str:
    """A, B and C."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def significance() -> str:
    """For notes under tables."""
    return f"Beats and worse mean p < {ALPHA:g}, corrected for the number of rivals (Holm)."
