"""Scores of single classes: of the chosen and the last layer on the page, of every representation in a file."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from xfm.core.parts import TRAIN
from xfm.core.report import Estimate, Table
from xfm.judging.eval_set import MISSING, EvalSet, Labels
from xfm.judging.probe import CLASSIFIER_WORDS
from xfm.metrics.classification import bootstrap_class_f1, confusion_matrix, per_class
from xfm.metrics.paired import bootstrap_difference
from xfm.metrics.resampling import GroupDraws
from xfm.studies.evaluate.headline import file_name, last_words, name_of
from xfm.studies.evaluate.verdict import CHOSEN_BY, Scores, Verdict

SHOWN = ("precision", "recall", "f1")
HEADS = {"precision": "precision", "recall": "recall", "f1": "F1"}
# One line for each (representation, classifier, label, class), scored on test rows.
SCHEMA = pa.schema(
    [
        ("representation", pa.string()),
        ("kind", pa.string()),
        ("pool", pa.string()),
        ("layer", pa.int32()),
        ("classifier", pa.string()),
        ("label", pa.string()),
        ("class", pa.string()),
        ("precision", pa.float64()),  # null for a class without test rows
        ("recall", pa.float64()),
        ("f1", pa.float64()),
        ("support", pa.int64()),  # test rows of the class
    ]
)


def confusion(scores: Scores, judged: EvalSet, label: Labels, name: str, task: str | None = None) -> NDArray[np.int64]:
    """(K, K) test rows by true and predicted class, of a representation read by a classifier.

    Args:
        task: the classifier; None for the one that chooses.
    """
    row = scores.get(name, task or scores.by, label.name, CHOSEN_BY, "test")
    assert row is not None
    assert row.predicted is not None
    truth = label.codes[judged.test_cells(label)]
    n_classes = len(label.classes)
    return confusion_matrix(truth, row.predicted, n_classes)


def class_table(scores: Scores, judged: EvalSet, label: Labels, verdict: Verdict) -> Table:
    """Precision, recall and F1 of each class, of the chosen layer, the last one and PCA."""
    named = {"": verdict.chosen.name}
    if verdict.last is not None and verdict.last.name != verdict.chosen.name:
        named[f", {last_words(verdict).removeprefix('the ')}"] = verdict.last.name
    found = {words: per_class(confusion(scores, judged, label, name)) for words, name in named.items()}
    support = found[""]["support"]
    columns = [(f"{HEADS[metric]}{words}", found[words][metric]) for words in named for metric in SHOWN]
    gains = _gains(scores, judged, label, verdict)
    if "pca" in verdict.rivals:
        columns.append(("F1, PCA", per_class(confusion(scores, judged, label, verdict.rivals["pca"]))["f1"]))
    is_training = (label.codes != MISSING) & (judged.split.parts == TRAIN)
    training = np.bincount(label.codes[is_training], minlength=len(label.classes))
    return Table(
        name=f"{file_name(label.name)}_classes",
        caption=f"{label.name}: each class, read by the {CLASSIFIER_WORDS[verdict.by]} from {name_of(verdict.chosen)}"
        + (f" and from {last_words(verdict)}" if len(named) > 1 else ""),
        columns=["class", f"training {judged.noun}", "support", *gains, *(head for head, _ in columns)],
        rows=[
            [
                label.classes[at], int(training[at]), int(support[at]), *(each[at] for each in gains.values()),
                *(_number(column[at]) for _, column in columns),
            ]
            for at in np.argsort(-support, kind="stable")
        ],
        note=f"support: test {judged.noun} of the class. A class without any enters no average; one without training "
        f"{judged.noun} counts as missed. Intervals of single classes are not corrected for their number. Every layer "
        "and classifier: classes.csv.",
    )  # fmt: skip


def _gains(scores: Scores, judged: EvalSet, label: Labels, verdict: Verdict) -> dict[str, list[Estimate | None]]:
    """F1 of each class from the chosen layer minus that from the last one, with paired intervals; nothing where they
    are one. A layer that is better on average may be so for one rare class alone."""
    if verdict.last is None or verdict.last.name == verdict.chosen.name:
        return {}
    rows = judged.test_cells(label)
    draws = GroupDraws(judged.split.groups[rows], judged.seed, judged.resamples)
    own, last = (
        bootstrap_class_f1(label.codes[rows], row.predicted, len(label.classes), draws)
        for name in (verdict.chosen.name, verdict.last.name)
        if (row := scores.primary(name, label.name, "test")) is not None and row.predicted is not None
    )
    found: list[Estimate | None] = []
    for a, b in zip(own, last, strict=True):
        gain = bootstrap_difference(a.draws, b.draws, a.value, b.value, draws.n_groups)
        value = Estimate(value=gain.value, low=gain.low, high=gain.high) if np.isfinite(gain.value) else None
        found.append(value)
    return {f"F1 minus {last_words(verdict)}": found}


def classes_csv(scores: Scores, judged: EvalSet) -> bytes:
    """Every class as every classifier reads it from every representation, as SCHEMA, in CSV."""
    sink = io.BytesIO()
    csv.write_csv(pa.Table.from_pylist(list(_lines(scores, judged)), schema=SCHEMA), sink)
    return sink.getvalue()


def _lines(scores: Scores, judged: EvalSet) -> Iterator[dict[str, Any]]:
    labels = {label.name: label for label in judged.labels}
    known = {each.name: each for each in scores.representations}
    for (name, task, of, metric, split), row in scores.rows.items():
        if metric != CHOSEN_BY or split != "test" or row.predicted is None:
            continue
        label, each = labels[of], known[name]
        found = per_class(confusion(scores, judged, label, name, task))
        common = {"representation": name, "kind": each.kind, "pool": each.pool, "layer": each.layer}
        for number, words in enumerate(label.classes):
            own = {metric: _number(found[metric][number]) for metric in SHOWN}
            own |= {"support": int(found["support"][number])}
            yield common | {"classifier": task, "label": of, "class": words} | own


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
