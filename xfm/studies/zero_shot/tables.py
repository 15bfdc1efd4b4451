"""The tables of a zero-shot job: scores beside baselines, layers, classes, mistakes, confidence, prompts."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from xfm.core.metric import words_of
from xfm.core.report import Table
from xfm.judging.representations import RANDOM
from xfm.metrics.calibration import BINS, Reliability, reliability
from xfm.metrics.classification import confusion_matrix, per_class
from xfm.metrics.zero_shot import confused_pairs
from xfm.models.clip.prompts import Prompts
from xfm.studies.zero_shot.headline import RIVALS, significance
from xfm.studies.zero_shot.rows import ONE_TEMPLATE, ZERO_SHOT
from xfm.studies.zero_shot.scores import Question, Results

MOST_PAIRS = 20
SHOWN = ("accuracy", "acc5", "balanced_accuracy", "f1", "ece")


def tables(question: Question, results: Results) -> Iterator[Table]:
    """All tables, the summary first."""
    yield _summary(question, results)
    yield _rivals(results)
    yield _layers(results)
    yield _classes(question, results)
    pairs = _pairs(question, results)
    if pairs.rows:
        yield pairs
    yield _reliability(question, results)
    yield _prompts(question.prompts)


def names_of(results: Results) -> dict[str, str]:
    """Representation by what it is called, those that stand beside the classifier itself."""
    named = {"zero-shot": ZERO_SHOT}
    for each in results.representations:
        if each.kind == "baseline" and each.place != RANDOM:
            named[RIVALS.get(each.name, each.name)] = each.name
    random = results.layers(RANDOM)
    return named | ({RIVALS[RANDOM]: random[-1].name} if random else {})


def confusion_of(question: Question, results: Results, name: str = ZERO_SHOT) -> Any:
    """(K, K) test rows by true and guessed class."""
    return confusion_matrix(question.truth[question.test()], results.guesses[name].ranked[:, 0], question.n_classes)


def reliability_of(question: Question, results: Results, name: str = ZERO_SHOT) -> Reliability:
    """Accuracy by confidence, on test rows."""
    own = results.guesses[name]
    assert own.confidence is not None
    return reliability(own.confidence, own.ranked[:, 0] == question.truth[question.test()])


def _summary(question: Question, results: Results) -> Table:
    metrics = [name for name in SHOWN if (ZERO_SHOT, name) in results.scores]
    rows: list[list[Any]] = []
    for words, name in names_of(results).items():
        validation = results.validation.get((name, "accuracy"))
        rows.append([words, *(results.estimate(name, metric) for metric in metrics)])
        rows[-1] += [validation.value if validation else None] if results.validation else []
    draws = question.draws(question.test())
    training = question.judged.split.cells()[0]
    return Table(
        name="zero_shot_summary",
        caption=f"{question.label}: {question.n_classes:,} classes, {len(question.test()):,} {question.judged.noun} in "
        f"{draws.n_groups:,} groups, 95 % intervals over groups",
        columns=["", *(words_of(name) for name in metrics), *(["accuracy, validation"] if results.validation else [])],
        rows=rows,
        note="Balanced accuracy is the mean recall of classes; macro F1 averages over classes; calibration error is "
        "the mean gap between confidence and accuracy (0 is best). The largest class and frequencies "
        f"are those of the {'training' if training else 'scored'} {question.judged.noun}: a guesser without them does "
        f"worse, 1/{question.n_classes} = {1 / question.n_classes:.3f} where all classes are alike.",
        best=0,
    )


def _rivals(results: Results) -> Table:
    rows: list[list[Any]] = [
        [RIVALS.get(what, what), results.estimate(duel.rival, "accuracy"), duel.difference, duel.p, duel.words]
        for what, duel in results.duels.items()
    ]
    return Table(
        name="zero_shot_rivals",
        caption="The zero-shot classifier against its rivals, by accuracy",
        columns=["rival", "accuracy of the rival", "zero-shot minus rival", "p, corrected", "zero-shot, against it"],
        rows=rows,
        note="Intervals from shared resamples of groups; p from swapping the guesses of whole groups. "
        + significance(),
    )


def _layers(results: Results) -> Table:
    random = {each.layer: each.name for each in results.layers(RANDOM)}
    has_top = (ZERO_SHOT, "acc5") in results.scores
    metrics = ["accuracy", *(["acc5"] if has_top else []), "balanced_accuracy"]
    rows: list[list[Any]] = []
    for each in results.layers("parts"):
        row: list[Any] = [each.layer, *(results.estimate(each.name, metric) for metric in metrics)]
        row += [results.estimate(random[each.layer], "accuracy")] if each.layer in random else []
        rows.append(row)
    return Table(
        name="zero_shot_layers",
        caption="Every layer read as if it were the last",
        columns=["layer", *(words_of(name) for name in metrics), *(["accuracy, random weights"] if random else [])],
        rows=rows,
        note="Layer 0 is the input embedding, the last one the zero-shot classifier itself. Nothing is chosen by this.",
        best=len(rows) - 1,
    )


def _classes(question: Question, results: Results) -> Table:
    named = {"": ZERO_SHOT} | ({", one template": ONE_TEMPLATE} if ONE_TEMPLATE in results.guesses else {})
    found = {words: per_class(confusion_of(question, results, name)) for words, name in named.items()}
    own = found[""]
    rows: list[list[Any]] = []
    for number in np.argsort(-own["support"], kind="stable"):
        scores = [_or_none(own[metric][number]) for metric in ("recall", "precision", "f1")]
        others = [_or_none(table["recall"][number]) for words, table in found.items() if words]
        rows.append([question.prompts.names[number], question.prompts.values[number], int(own["support"][number]),
                     *scores, *others])  # fmt: skip
    return Table(
        name="zero_shot_classes",
        caption=f"Each class of {question.label}",
        columns=["class", "value", question.judged.noun, "recall", "precision", "F1",
                 *(f"recall{words}" for words in list(named)[1:])],
        rows=rows,
        note=f"A class without {question.judged.noun} enters no average.",
    )  # fmt: skip


def _pairs(question: Question, results: Results) -> Table:
    names = question.prompts.names
    pairs = confused_pairs(confusion_of(question, results), MOST_PAIRS)
    return Table(
        name="zero_shot_confused",
        caption="What is most often taken for what",
        columns=["class", "taken for", question.judged.noun, "share of the class"],
        rows=[[names[pair.truth], names[pair.predicted], pair.rows, pair.share] for pair in pairs],
    )


def _reliability(question: Question, results: Results) -> Table:
    table = reliability_of(question, results)
    rows: list[list[Any]] = [
        [f"{low:.2f} to {high:.2f}", int(count), _or_none(confidence), _or_none(accuracy)]
        for low, high, count, confidence, accuracy in zip(*table, strict=True)
    ]
    return Table(
        name="zero_shot_reliability",
        caption="How often a guess is right, by how sure the network is of it",
        columns=["confidence", question.judged.noun, "mean confidence", "accuracy"],
        rows=rows,
        note=f"{BINS} bins of equal width, closed at the right (Guo et al., 2017); probabilities by the scale that the "
        "network has learned.",
    )


def _prompts(prompts: Prompts) -> Table:
    return Table(
        name="zero_shot_prompts",
        caption="What the text tower was asked for each class",
        columns=["number", "value", "name", "prompts", "first prompt"],
        rows=[
            [number, value, name, len(texts), texts[0]]
            for number, (value, name, texts) in enumerate(
                zip(prompts.values, prompts.names, prompts.texts, strict=True)
            )
        ],
        note="All of them stand in prompts.json and in classifier.safetensors.",
    )


def _or_none(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
