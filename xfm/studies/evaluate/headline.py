"""What an evaluation says in words: no claim that its test does not carry."""

import hashlib
import re
from collections.abc import Mapping, Sequence

from xfm.core.report import Estimate
from xfm.judging.comparison import BEATS, EVEN, UNTESTABLE, WORSE, Comparison
from xfm.judging.probe import CLASSIFIER_WORDS
from xfm.judging.representations import CHANCE, MAJORITY, RANDOM, WITHIN_MAJORITY, Representation
from xfm.studies.evaluate.verdict import COMBINATION, LAST, Scores, Verdict

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
    """One sentence: does the chosen layer beat the last one, and the baselines, beyond noise?"""
    own = scores.primary(verdict.chosen.name, verdict.label, "test")
    assert own is not None
    score = f"macro F1 of the {CLASSIFIER_WORDS[verdict.by]} {_words(own.estimate)}"
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
    against_last = [(name, test) for (name, what), test in verdict.by_layer.items() if what == LAST]
    better = [name for name, test in against_last if test.verdict == BEATS]
    more = f"{len(better)} layer{'s do' if len(better) != 1 else ' does'}"
    duel = verdict.duels.get(LAST)
    if duel is None:
        found = (
            f"on test {verdict.noun} {more} better beyond noise" if better else "no other layer is better beyond noise"
        )
        if needs := next((test.needs for _, test in against_last if test.needs), ""):
            found = f"whether another is better is not testable (takes {needs})"
        return f"validation chose {deepest} itself ({chosen}, {score}), and {found}"
    last = scores.primary(verdict.last.name, verdict.label, "test")
    assert last is not None
    subject = f"{chosen}, chosen on validation"
    if duel.verdict == UNTESTABLE:
        return (
            f"{subject} ({score}), against {deepest} ({last.value:.3f}): difference {duel.difference.words('+.3f')}, "
            f"not testable (takes {duel.needs})"
        )
    against = f"{score} against {last.value:.3f}, {_p(duel)}"
    if duel.verdict in (BEATS, WORSE):
        return f"{subject}, {'beats' if duel.verdict == BEATS else 'is worse than'} {deepest} beyond noise ({against})"
    if better:
        return f"{subject}, does not beat {deepest} beyond noise ({against}), though on test {verdict.noun} {more}"
    return f"{subject}, is not told apart from {deepest} ({against})"


def _against_baselines(verdict: Verdict) -> str:
    duels = {what: duel for what, duel in verdict.duels.items() if what not in (LAST, COMBINATION)}
    if not duels:
        return "no baseline was at hand"
    named = {RIVALS.get(what, what): duel for what, duel in duels.items()}
    if {duel.verdict for duel in duels.values()} == {BEATS}:
        return f"the chosen layer beats every baseline beyond noise ({_and(list(named))})"
    return f"the chosen layer {sentence_of(named)}"


def sentence_of(duels: Mapping[str, Comparison]) -> str:
    """What something does to its rivals, by what these are called: "beats A and B and is not told apart from C"."""
    words = {BEATS: "beats {}", EVEN: "is not told apart from {}", WORSE: "is worse than {}"}
    said = []
    for verdict, text in words.items():
        if named := [name for name, duel in duels.items() if duel.verdict == verdict]:
            said.append(text.format(_and(named)))
    untested = {name: duel for name, duel in duels.items() if duel.verdict == UNTESTABLE}
    for needs in dict.fromkeys(duel.needs for duel in untested.values()):
        named = [f"{name} ({duel.difference.value:+.3f})" for name, duel in untested.items() if duel.needs == needs]
        said.append(f"is not testable against {_and(named)}, which takes {needs}")
    return _and(said)


def _words(found: Estimate | float | None) -> str:
    return found.words() if isinstance(found, Estimate) else f"{found:.3f}"


def _p(duel: Comparison) -> str:
    return "p < 0.001" if duel.p < 0.001 else f"p = {duel.p:.3f}"


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
