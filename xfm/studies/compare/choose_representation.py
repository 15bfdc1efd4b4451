"""Which representations of a run stand on a board: never picked by looking at test cells."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from xfm.core.schema import layer_column
from xfm.studies.compare.finished_run import REPORTED, Run, StoredScore


@dataclass(frozen=True, slots=True)
class Pick:
    """A representation of one run."""

    name: str
    kind: str
    layer: int | None
    role: str = ""  # what it was picked as: best, last, random; empty where its name says all


def picks(run: Run, label: str, wanted: Sequence[str]) -> list[Pick]:
    """What is wanted of a run, in the order of its scores.

    Args:
        run: where from.
        label: for which label; empty for a run that has only reported numbers.
        wanted: best (chosen on validation cells), last (deepest layer; of several poolings the better one on
            validation), baselines (of networks that learned nothing, whose layers are many, the best on validation),
            all, or names.
    """
    scores = [score for score in run.scores if score.label == label]
    every = {score.representation: score for score in scores}
    found: list[Pick] = []
    if REPORTED in every:
        found.append(_pick(every[REPORTED]))
    if "best" in wanted or "all" in wanted:
        own = [(every[name], role) for name, role in _best(run, label) if name in every]
        # What was fine-tuned is the one thing that its run made, chosen among no layers.
        found += [_pick(score, role if score.kind != "layer" or score.layer is not None else "") for score, role in own]
    if "last" in wanted or "all" in wanted:
        found += [_pick(score, "last") for score in _last(run, label, every.values())]
    if "baselines" in wanted and "all" not in wanted:
        found += _baselines(run, label, every.values())
    found += [_pick(score) for name, score in every.items() if name in wanted or ("all" in wanted and name != REPORTED)]
    return found


def _pick(score: StoredScore, role: str = "") -> Pick:
    return Pick(score.representation, score.kind, score.layer, role)


def _best(run: Run, label: str) -> Iterator[tuple[str, str]]:
    """(representation, role): the run's own choice, else the best layer on validation cells.

    A label that no layer was chosen for (batches, time) shows what was chosen for the others.
    """
    if label in run.choice:
        yield run.choice[label], "best"
    elif layer := _best_on_validation(run, label, (s for s in run.scores if s.kind == "layer" and s.label == label)):
        yield layer.representation, "best"
    else:
        for other, name in run.choice.items():
            yield name, f"best for {other}"


def _last(run: Run, label: str, scores: Iterable[StoredScore]) -> list[StoredScore]:
    layers = [score for score in scores if score.kind == "layer" and score.layer is not None]
    deepest = [score for score in layers if score.layer == max(other.layer or 0 for other in layers)]
    best = _best_on_validation(run, label, deepest)
    return [best] if best is not None else deepest


def _baselines(run: Run, label: str, scores: Iterable[StoredScore]) -> list[Pick]:
    found: list[Pick] = []
    layered: dict[str, list[StoredScore]] = {}
    for score in scores:
        if score.kind == "baseline" and score.pool is not None and score.layer is not None:
            name = score.representation.removesuffix(layer_column(score.pool, score.layer)).rstrip("_")
            layered.setdefault(name or "baseline", []).append(score)
        elif score.kind == "baseline":
            found.append(_pick(score))
    for name, layers in layered.items():
        best = _best_on_validation(run, label, layers)
        found.append(_pick(best or max(layers, key=lambda score: score.layer or 0), name))
    return found


def _best_on_validation(run: Run, label: str, scores: Iterable[StoredScore]) -> StoredScore | None:
    """The first of the best; None where none was scored there."""
    best: tuple[float, StoredScore] | None = None
    for score in {score.representation: score for score in scores}.values():
        found = run.find(score.representation, label, run.chooses, "validation")
        if found is not None and found.value is not None and (best is None or found.value > best[0]):
            best = found.value, score
    return None if best is None else best[1]
