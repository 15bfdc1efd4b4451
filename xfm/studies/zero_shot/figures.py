"""The figures of a zero-shot job: the lens at every layer first, then mistakes, classes, confidence."""

from pathlib import Path

import numpy as np

from xfm.core.report import Figure
from xfm.judging.representations import CHANCE, MAJORITY, RANDOM, Representation
from xfm.metrics.classification import bootstrap_class_recall
from xfm.metrics.resampling import estimate
from xfm.plots.classifier import Reliable, draw_confusion, draw_reliability
from xfm.plots.dots import Bars, draw_bars
from xfm.plots.layer_curve import Baseline, Series, draw_layer_curve
from xfm.studies.evaluate.headline import RIVALS as COMMON
from xfm.studies.zero_shot.rows import ONE_TEMPLATE, ZERO_SHOT
from xfm.studies.zero_shot.scores import CHOSEN_BY, Question, Results
from xfm.studies.zero_shot.tables import confusion_of, reliability_of


def draw(question: Question, results: Results, folder: Path) -> list[Figure]:
    """All figures below `folder`; the hero is the layer curve."""
    return [
        _curve(question, results, folder),
        _bars(question, results, folder),
        draw_confusion(
            folder, "zero_shot_confusion", confusion_of(question, results), question.prompts.names,
            caption=f"Which {question.label} the zero-shot classifier takes for which.", noun=question.judged.noun,
        ),
        _reliability(question, results, folder),
    ]  # fmt: skip


def _curve(question: Question, results: Results, folder: Path) -> Figure:
    noun = question.judged.noun
    series = [_series(results, "logit lens", results.layers("parts"))]
    baselines: list[Baseline | Series] = []
    for name, words in ((MAJORITY, COMMON[MAJORITY]), (CHANCE, COMMON[CHANCE]), (ONE_TEMPLATE, "one template")):
        own = results.estimate(name, CHOSEN_BY)
        if own is not None:
            baselines.append(Baseline(words, own.value, own.low, own.high))
    if random := results.layers(RANDOM):
        baselines.append(_series(results, "random weights", random))
    return draw_layer_curve(
        folder, "zero_shot_layers", series, baselines, metric="accuracy", higher_is_better=True,
        title=f"{question.label}: each layer read as if it were the last",
        caption=f"Accuracy of the logit lens at every layer on {len(question.test()):,} {noun}, with 95 % intervals "
        "over groups; the last layer is the zero-shot classifier itself, grey: baselines.",
    )  # fmt: skip


def _series(results: Results, name: str, layers: list[Representation]) -> Series:
    found = [results.estimate(each.name, CHOSEN_BY) for each in layers]
    ends = [(np.nan,) * 3 if one is None else (one.value, *one.ends) for one in found]
    values, low, high = (list(column) for column in zip(*ends, strict=True))
    return Series(name, [each.layer or 0 for each in layers], values, low, high)


def _bars(question: Question, results: Results, folder: Path) -> Figure:
    rows = question.test()
    truth, draws = question.truth[rows], question.draws(rows)
    support = np.bincount(truth, minlength=question.n_classes)
    held = np.flatnonzero(support)
    named = {"zero-shot": ZERO_SHOT} | ({"one template": ONE_TEMPLATE} if ONE_TEMPLATE in results.guesses else {})
    bars = []
    for words, name in named.items():
        predicted = results.guesses[name].ranked[:, 0]
        found = [estimate(*one) for one in bootstrap_class_recall(truth, predicted, question.n_classes, draws)]
        ends = [(one.value, *one.ends) if one else (np.nan,) * 3 for one in found]
        value, low, high = (list(column) for column in zip(*(ends[number] for number in held), strict=True))
        bars.append(Bars(words, value, low, high))
    return draw_bars(
        folder, "zero_shot_classes", [question.prompts.names[number] for number in held], support[held].tolist(), bars,
        metric="recall", noun=question.judged.noun,
        caption=f"Recall of each {question.label}, with 95 % intervals over groups; their mean is the balanced "
        "accuracy.",
        title=f"Which {question.label} is told",
    )  # fmt: skip


def _reliability(question: Question, results: Results, folder: Path) -> Figure:
    named = {"zero-shot": ZERO_SHOT} | ({"one template": ONE_TEMPLATE} if ONE_TEMPLATE in results.guesses else {})
    return draw_reliability(
        folder, "zero_shot_reliability",
        [Reliable(words, *reliability_of(question, results, name)) for words, name in named.items()],
        caption="How often guesses of one confidence are right, and how many there are; on the dashed line, as often "
        "as they say.",
        title="Confidence against accuracy", noun=question.judged.noun,
    )  # fmt: skip
