"""What an evaluation says in words: no claim that its interval and its corrected p-value do not carry."""

import hashlib
import re
from collections.abc import Sequence

from xfm.judging.probe import CLASSIFIER_WORDS
from xfm.judging.representations import CHANCE, MAJORITY, RANDOM, WITHIN_MAJORITY, Representation
from xfm.studies.evaluate.verdict import ALPHA, COMBINATION, LAST, Duel, Scores, Verdict

RIVALS = {
    LAST: "the last layer",
    MAJORITY: "the largest class",
    CHANCE: "guessing by frequency",
    WITHIN_MAJORITY: "the largest class of each one's own set",
    "hvg": "variable genes",
    "pca": "PCA",
    "scvi": "scVI",
    RANDOM: "the same network with random weights",
    COMBINATION: "the best combination of layers",
}


def name_of(representation: Representation) -> str:
    """For people: "layer 7 (mean)"."""
    if representation.layer is None:
        return representation.name
    word = "random weights, layer" if representation.place == RANDOM else "layer"
    return f"{word} {representation.layer} ({representation.pool})"


def file_name(label: str) -> str:
    """A label's column as a part of file names: itself where that is safe, else cleaned and told apart by a digest."""
    cleaned = re.sub(r"[^A-Za-z0-9_-]+", "_", label)[:60]
    return cleaned if cleaned == label else f"{cleaned}-{hashlib.sha256(label.encode()).hexdigest()[:6]}"


def headline(scores: Scores, verdict: Verdict) -> str:
    """One sentence: does any layer beat the last one, and the baselines, beyond noise?"""
    own = scores.primary(verdict.chosen.name, verdict.label, "test")
    assert own is not None
    assert own.value is not None
    score = f"macro F1 of the {CLASSIFIER_WORDS[verdict.by]} {own.value:.3f}" + (
        f" [{own.low:.3f}, {own.high:.3f}]" if own.low is not None else ""
    )
    return f"Reading {verdict.label}: {_against_last(scores, verdict, score)}; {_against_baselines(verdict)}."


def last_words(verdict: Verdict) -> str:
    """What the layer that others are set against is called."""
    assert verdict.last is not None
    return "the last layer" if verdict.is_last else f"layer {verdict.last.layer}, the deepest judged"


def _against_last(scores: Scores, verdict: Verdict, score: str) -> str:
    chosen = name_of(verdict.chosen)
    if verdict.last is None:
        alone = verdict.layers == 1
        return (
            f"{chosen} ({score})"
            if alone
            else f"of {verdict.layers} representations validation chose {chosen} ({score})"
        )
    deepest = last_words(verdict)
    better = [name for (name, what), duel in verdict.duels.items() if what == LAST and duel.is_better]
    more = f"{len(better)} layer{'s do' if len(better) != 1 else ' does'}"
    duel = verdict.duel(LAST)
    if duel is None:
        found = (
            f"on test {verdict.noun} {more} better beyond noise" if better else "no other layer is better beyond noise"
        )
        if any(other.is_untestable for (_, what), other in verdict.duels.items() if what == LAST):
            found = "test groups are too few to tell the others from it"
        return f"validation chose {deepest} itself ({chosen}, {score}), and {found}"
    last = scores.primary(verdict.last.name, verdict.label, "test")
    assert last is not None
    subject, gap = f"{chosen}, chosen on validation", duel.difference
    against = f"{score} against {last.value:.3f}, {_p(duel)}"
    if duel.is_untestable:
        apart = f"difference {gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
        return (
            f"too few test groups to tell {subject} ({score}), from {deepest} beyond noise ({last.value:.3f}; {apart})"
        )
    if duel.is_better:
        return f"{subject}, beats {deepest} beyond noise ({against})"
    if duel.is_worse:
        return f"{subject}, is worse than {deepest} beyond noise ({against})"
    if better:
        return f"{subject}, does not beat {deepest} beyond noise ({against}), though on test {verdict.noun} {more}"
    return f"no layer beats {deepest} beyond noise ({subject}: {against})"


def _against_baselines(verdict: Verdict) -> str:
    others = (what for what in verdict.rivals if what not in (LAST, COMBINATION))
    duels = {what: duel for what in others if (duel := verdict.duel(what)) is not None}
    if not duels:
        return "no baseline was at hand"
    beaten = [RIVALS.get(what, what) for what, duel in duels.items() if duel.is_better]
    even = [RIVALS.get(what, what) for what, duel in duels.items() if not duel.is_better and not duel.is_worse]
    if any(duel.is_untestable for duel in duels.values()):
        return f"nor to tell it from {_and([RIVALS.get(what, what) for what in duels])}"
    above = [RIVALS.get(what, what) for what, duel in duels.items() if duel.is_worse]
    if len(beaten) == len(duels):
        return f"the chosen layer beats every baseline beyond noise ({_and(beaten)})"
    said = [f"beats {_and(beaten)}"] if beaten else []
    said += [f"is not told apart from {_and(even)}"] if even else []
    said += [f"loses to {_and(above)}"] if above else []
    return f"the chosen layer {_and(said)}"


def verdict_word(duel: Duel) -> str:
    """A cell of the table of duels."""
    if duel.is_untestable:
        return "not testable"
    if duel.is_better:
        return "better"
    return "worse" if duel.is_worse else "within noise"


def _p(duel: Duel) -> str:
    shown = "p < 0.001" if duel.p < 0.001 else f"p = {duel.p:.3f}"
    return f"{shown} after correction" if duel.p < ALPHA else shown


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
