"""What an evaluation says in words: no claim that its interval and its corrected p-value do not carry."""

import hashlib
import re
from collections.abc import Sequence

from xfm.loops.evaluation.representations import MAJORITY, RANDOM, Representation
from xfm.loops.evaluation.verdict import ALPHA, LAST, Duel, Scores, Verdict

RIVALS = {
    LAST: "the last layer",
    MAJORITY: "the largest class",
    "hvg": "variable genes",
    "pca": "PCA",
    "scvi": "scVI",
    RANDOM: "the same network with random weights",
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
    own = scores.probe(verdict.chosen.name, verdict.label, "test")
    assert own is not None
    assert own.value is not None
    score = f"macro F1 {own.value:.3f}" + (f" [{own.low:.3f}, {own.high:.3f}]" if own.low is not None else "")
    subject = f"{name_of(verdict.chosen)}, chosen on validation"
    return f"Reading {verdict.label}: {_against_last(scores, verdict, subject, score)}; {_against_baselines(verdict)}."


def _against_last(scores: Scores, verdict: Verdict, subject: str, score: str) -> str:
    last = scores.probe(verdict.last.name, verdict.label, "test")
    assert last is not None
    duel = verdict.duel(LAST)
    if duel is None:
        better = [name for (name, what), other in verdict.duels.items() if what == LAST and other.is_better]
        more = f", though {len(better)} layers did better on test cells" if better else ""
        return f"no layer beats the last one, which validation chose itself ({subject}, {score}){more}"
    against = f"{score} against {last.value:.3f}, {_p(duel)}"
    if duel.is_untestable:
        return f"too few test groups to tell {subject} ({score}), from the last layer ({last.value:.3f}) beyond noise"
    if duel.is_better:
        return f"{subject}, beats the last layer beyond noise ({against})"
    if duel.is_worse:
        return f"{subject}, is worse than the last layer beyond noise ({against})"
    others = [name for (name, what), other in verdict.duels.items() if what == LAST and other.is_better]
    if others:
        return f"{subject}, does not beat the last layer beyond noise ({against}), though {len(others)} others do"
    return f"no layer beats the last one beyond noise ({subject}: {against})"


def _against_baselines(verdict: Verdict) -> str:
    duels = {what: duel for what in verdict.rivals if what != LAST and (duel := verdict.duel(what)) is not None}
    if not duels:
        return "no baseline was at hand"
    beaten = [RIVALS.get(what, what) for what, duel in duels.items() if duel.is_better]
    even = [RIVALS.get(what, what) for what, duel in duels.items() if not duel.is_better and not duel.is_worse]
    if any(duel.is_untestable for duel in duels.values()):
        return f"too few test groups to tell it from {_and([RIVALS.get(what, what) for what in duels])}"
    above = [RIVALS.get(what, what) for what, duel in duels.items() if duel.is_worse]
    if len(beaten) == len(duels):
        return f"the chosen layer beats every baseline beyond noise ({_and(beaten)})"
    said = [f"the chosen layer beats {_and(beaten)}"] if beaten else []
    said += [f"is not told apart from {_and(even)}"] if even else []
    said += [f"loses to {_and(above)}"] if above else []
    text = _and(said) if len(said) < 3 else f"{said[0]}, {said[1]} and {said[2]}"
    return text if text.startswith("the ") else f"the chosen layer {text}"


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
