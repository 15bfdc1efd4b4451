"""The figures of an evaluation: the layer curve first, then UMAPs, the confusion matrix and the score of each class."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xfm.core.report import Figure
from xfm.judging.eval_set import EvalSet, Labels
from xfm.judging.probe import CLASSIFIER_WORDS
from xfm.judging.representations import RANDOM, Representation
from xfm.metrics.classification import bootstrap_class_f1
from xfm.metrics.resampling import GroupDraws, estimate
from xfm.plots.classifier import draw_confusion
from xfm.plots.dots import Bars, draw_bars
from xfm.plots.layer_curve import Baseline, Mark, Series, draw_layer_curve
from xfm.plots.scatter import Panel, draw_panels
from xfm.studies.evaluate.class_tables import confusion
from xfm.studies.evaluate.headline import RIVALS, file_name, last_words, name_of
from xfm.studies.evaluate.targets import draw_targets
from xfm.studies.evaluate.verdict import COMBINATION, LAST, Scores, Verdict

# (short name, task, metric, split, its words, title); the classifier that chooses leads.
Curve = tuple[str, str, str, str, str, str]
CLUSTERS = ("nmi", "clustering", "normalized_mutual_info", "all", "NMI of Leiden clusters",
            "How well clusters in each layer agree with {label}")  # fmt: skip


def draw(
    scores: Scores,
    judged: EvalSet,
    verdicts: Sequence[Verdict],
    coordinates: Mapping[str, NDArray[np.floating]],
    folder: Path,
) -> list[Figure]:
    """All figures below `folder`; the hero is the layer curve of the first label.

    Args:
        coordinates: (N, 2) UMAP of the chosen and the last layer of the first label; empty where it was not computed.
    """
    labels = {label.name: label for label in judged.labels}
    figures = [figure for verdict in verdicts for figure in _curves(scores, labels[verdict.label], verdict, folder)]
    figures += draw_targets(scores, judged, folder)
    figures += _umaps(judged, labels[verdicts[0].label], verdicts[0], coordinates, folder)
    for verdict in verdicts:
        label = labels[verdict.label]
        figures.append(_bars(scores, judged, label, verdict, folder))
        figures.append(
            draw_confusion(
                folder, f"{file_name(label.name)}_confusion",
                confusion(scores, judged, label, verdict.chosen.name), label.classes,
                caption=f"Where the {CLASSIFIER_WORDS[verdict.by]} of {name_of(verdict.chosen)} mistakes one "
                f"{label.name} for another.",
                noun=verdict.noun,
            )
        )  # fmt: skip
    return figures


def _curves(scores: Scores, label: Labels, verdict: Verdict, folder: Path) -> list[Figure]:
    figures = []
    for short, task, metric, split, words, title in (_read_by(verdict), CLUSTERS):
        layers = [each for each in scores.of_kind("layer", label.name) if each.layer is not None]
        series = _series(scores, layers, task, label.name, metric, split)
        if not series:
            continue
        marks = []
        if short == "f1" and verdict.chosen.layer is not None:
            chosen = f"chosen on validation: layer {verdict.chosen.layer}"
            marks = [Mark(str(verdict.chosen.pool), verdict.chosen.layer, chosen)]
            last = verdict.last
            if last is not None and last.layer is not None and last.name != verdict.chosen.name:
                marks.append(Mark(str(last.pool), last.layer, last_words(verdict).removeprefix("the ")))
        figures.append(
            draw_layer_curve(
                folder, f"{file_name(label.name)}_{short}", series,
                _baselines(scores, verdict, task, label.name, metric, split),
                metric=words, higher_is_better=True, title=title.format(label=label.name), marks=marks,
                caption=f"{words} for {label.name} at every layer, with 95 % intervals over groups of {verdict.noun}; "
                f"grey: baselines. Only the order on validation {verdict.noun} chose the layer.",
            )
        )  # fmt: skip
    return figures


def _read_by(verdict: Verdict) -> Curve:
    words = f"macro F1 of the {CLASSIFIER_WORDS[verdict.by]}"
    return "f1", verdict.by, "f1", "test", words, "How well each layer tells {label}"


def _series(
    scores: Scores, layers: Sequence[Representation], task: str, label: str, metric: str, split: str, prefix: str = ""
) -> list[Series]:
    found = []
    for pool in dict.fromkeys(each.pool for each in layers):
        rows = [
            (each.layer or 0, scores.get(each.name, task, label, metric, split)) for each in layers if each.pool == pool
        ]
        if any(row is not None and row.value is not None for _, row in rows):
            values = [
                [_number(end) for end in (row.value, row.low, row.high)] if row else [np.nan] * 3 for _, row in rows
            ]
            value, low, high = (list(column) for column in zip(*values, strict=True))
            found.append(Series(f"{prefix}{pool}", [layer for layer, _ in rows], value, low, high))
    return found


def _baselines(
    scores: Scores, verdict: Verdict, task: str, label: str, metric: str, split: str
) -> list[Baseline | Series]:
    found: list[Baseline | Series] = []
    for what, name in verdict.rivals.items():
        row = scores.get(name, task, label, metric, split)
        if what in (LAST, RANDOM, COMBINATION) or row is None or row.value is None:
            continue
        found.append(Baseline(RIVALS.get(what, what), row.value, row.low, row.high))
    if RANDOM in verdict.rivals:
        # The pooling that a fair choice would take for the network that has learned nothing.
        pool = next(each.pool for each in scores.representations if each.name == verdict.rivals[RANDOM])
        layers = [each for each in scores.representations if each.place == RANDOM and each.pool == pool]
        found += _series(scores, layers, task, label, metric, split, "random weights, ")
    return found


def _umaps(
    judged: EvalSet, label: Labels, verdict: Verdict, coordinates: Mapping[str, NDArray[np.floating]], folder: Path
) -> list[Figure]:
    if not coordinates:
        return []
    named = {verdict.chosen.name: f"{name_of(verdict.chosen)}, chosen on validation"}
    if verdict.last is not None:
        named.setdefault(
            verdict.last.name, f"{name_of(verdict.last)}, the {'last' if verdict.is_last else 'deepest'} one"
        )
    columns = [label, *([judged.batch] if judged.batch is not None else [])]
    panels = [
        Panel(title, coordinates[name], column.words("not judged"), column.name)
        for column in columns
        for name, title in named.items()
        if name in coordinates
    ]
    by = " and by ".join(column.name for column in columns)
    caption = f"UMAP of the {'chosen and the last layer' if len(named) > 1 else 'chosen layer'}, by {by}."
    return [draw_panels(folder, "umap", panels, caption, columns=len(named), cells=judged.row_ids, noun=judged.noun)]


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _bars(scores: Scores, judged: EvalSet, label: Labels, verdict: Verdict, folder: Path) -> Figure:
    named = {name_of(verdict.chosen): verdict.chosen.name}
    if verdict.last is not None and verdict.last.name != verdict.chosen.name:
        named[f"{name_of(verdict.last)}, the {'last' if verdict.is_last else 'deepest'}"] = verdict.last.name
    named |= {"PCA": verdict.rivals["pca"]} if "pca" in verdict.rivals else {}
    held = judged.test_cells(label)
    truth, draws = label.codes[held], GroupDraws(judged.split.groups[held], judged.seed, judged.resamples)
    support = np.bincount(truth, minlength=len(label.classes))
    shown = np.flatnonzero(support)
    bars = []
    for words, name in named.items():
        row = scores.primary(name, label.name, "test")
        assert row is not None
        assert row.predicted is not None
        found = [estimate(*each) for each in bootstrap_class_f1(truth, row.predicted, len(label.classes), draws)]
        ends = [(each.value, *each.ends) if each else (np.nan,) * 3 for each in found]
        value, low, high = (list(column) for column in zip(*(ends[number] for number in shown), strict=True))
        bars.append(Bars(words, value, low, high))
    return draw_bars(
        folder, f"{file_name(label.name)}_classes",
        [label.classes[number] for number in shown], support[shown].tolist(), bars,
        metric="F1", caption=f"F1 of each {label.name} on test {verdict.noun}, with 95 % intervals over groups.",
        title=f"Which {label.name} is told, and by what", noun=verdict.noun,
    )  # fmt: skip
