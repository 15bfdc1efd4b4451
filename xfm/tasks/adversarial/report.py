"""The report of a donor classifier: what is told, beside what a data set alone tells, and what still leaks."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from xfm.core.metric import FRESH, LEAKAGE, words_of
from xfm.core.parts import TEST
from xfm.core.report import Estimate, Figure, Report, Table
from xfm.judging.classifier_report import (
    METRICS,
    classes,
    classifier_provenance,
    draw_test_confusion,
    found_score,
    score,
    training_numbers,
    value_of,
)
from xfm.judging.classifier_scores import TASK, name_of
from xfm.judging.eval_set import MISSING
from xfm.judging.judge_within import WITHIN
from xfm.judging.labelled import Labelled
from xfm.judging.representations import CHANCE, MAJORITY, WITHIN_MAJORITY
from xfm.plots.attention import AttentionSample, draw_cross_attention, draw_mean_attention
from xfm.plots.training_curves import draw_training_metrics
from xfm.tasks.adversarial.settings import AdversarialClassification
from xfm.training.settings import Record, Settings, Trained

Value = Estimate | float | None
OWN_SET = words_of(WITHIN)
CALIBRATION = {name: words_of(name) for name in ("log_loss", "ece")}
CURVES = ("validation_accuracy", "validation_f1", "validation_leakage_auroc")


def adversarial_report(
    trained: Trained,
    settings: Settings,
    steps_per_epoch: int,
    task: AdversarialClassification,
    labelled: Labelled,
    scores: pa.Table,
    run: Mapping[str, Any],
    *,
    notes: Sequence[str],
    warnings: Sequence[str],
    refused: Mapping[str, int],
) -> Report:
    """What was found."""
    label, own = labelled.label, name_of(task.mode)
    numbers: dict[str, Any] = {f"test {words}": score(scores, own, name, "test") for name, words in METRICS.items()}
    for name, value in (
        (f"test {OWN_SET}", found_score(scores, own, WITHIN, "test", TASK)),
        *((f"test {words}", found_score(scores, own, name, "test", TASK)) for name, words in CALIBRATION.items()),
        (f"test {task.attribute} leakage AUROC", found_score(scores, own, "auroc", "test", LEAKAGE)),
    ):
        numbers |= {} if value is None else {name: value}
    numbers |= training_numbers(trained, steps_per_epoch, labelled)
    if task.is_adversarial:
        numbers["strength of reversal at the step kept"] = round(task.strength(trained.best_step / settings.steps), 4)
    return Report(
        title=f"Fine-tuning: {label.name}" + (f" against {task.attribute}" if task.is_adversarial else ""),
        job="finetune",
        headline=headline(scores, labelled, task),
        numbers=numbers,
        tables=[
            summary(scores, labelled, own, is_chosen=bool(settings.watch)),
            *leakage_tables(scores, own),
            classes(trained.outcome, labelled),
        ],
        warnings=[*warnings, *notes, *labelled.warnings],
        provenance=classifier_provenance(
            run, labelled,
            {"representation": own, "chosen_on": "validation", "by": settings.watch or "the last step"},
        ),
        refused=dict(refused),
    )  # fmt: skip


def headline(scores: pa.Table, labelled: Labelled, task: AdversarialClassification) -> str:
    """One sentence: how well, against what, and what leaks."""
    own, label, noun = name_of(task.mode), labelled.label, labelled.judged.noun
    accuracy, largest = (_said(score(scores, name, "accuracy", "test")) for name in (own, MAJORITY))
    said = [f"{label.name} is told of {len(labelled.held(TEST)):,} test {noun} with an accuracy of {accuracy} (the "
            f"largest class: {largest})"]  # fmt: skip
    within = found_score(scores, own, WITHIN, "test", TASK)
    if within is not None:
        oracle, chance = (_said(found_score(scores, name, WITHIN, "test", TASK)) for name in (WITHIN_MAJORITY, CHANCE))
        said.append(f"within its {task.within} of {_said(within)} (the largest there: {oracle}, chance: {chance})")
    leaked = found_score(scores, own, "auroc", "test", LEAKAGE)
    if leaked is not None:
        trained = "after training against it" if task.is_adversarial else "without an adversary"
        said.append(f"{trained}, a fresh probe reads {task.attribute} of {label.name}s it never saw with an AUROC of "
                    f"{_said(leaked)}")  # fmt: skip
    return "; ".join(said) + "."


def summary(scores: pa.Table, labelled: Labelled, own: str, *, is_chosen: bool) -> Table:
    """Every score of the network and of guesses, on validation and on test rows."""
    judged = labelled.judged
    words = {own: "fine-tuned", WITHIN_MAJORITY: "largest class of the data set", MAJORITY: "largest class",
             CHANCE: "guessing by frequency"}  # fmt: skip
    there = set(scores["representation"].to_pylist())
    kept = f"were chosen on validation {judged.noun}" if is_chosen else "are those of the last step"
    rows: list[list[Any]] = [
        [shown, split, *(score(scores, name, metric, split) for metric in METRICS),
         *(found_score(scores, name, metric, split, TASK) for metric in (WITHIN, *CALIBRATION))]
        for name, shown in words.items() if name in there
        for split in ("validation", "test")
    ]  # fmt: skip
    return Table(
        name="summary",
        caption=f"{labelled.label.name}: {len(labelled.label.classes)} classes, 95 % intervals over "
        f"{judged.resamples:,} resamples",
        columns=["prediction", "read on", *METRICS.values(), OWN_SET, *CALIBRATION.values()],
        rows=rows,
        note=f"Within the data set only its own classes may be chosen; guessing there is 1 over their number. The "
        f"weights {kept}; test {judged.noun} were read once, after the last step. Log loss is in nats.",
        best=1,
    )


def leakage_tables(scores: pa.Table, own: str) -> list[Table]:
    """What fresh classifiers read from frozen features; none where nothing was measured."""
    held = scores.filter(pc.is_in(scores["task"], pa.array([LEAKAGE, FRESH])))
    rows: list[list[Any]] = [
        [row["label"], row["metric"], row["split"], value_of(row), row["cells"], row["note"]]
        for row in held.sort_by([("task", "descending")]).to_pylist()
        if row["representation"] == own
    ]
    if not rows:
        return []
    return [
        Table(
            name="fresh_probes",
            caption="What logistic regressions, fitted after training, read from the frozen features",
            columns=["column", "metric", "read on", "value", "cells", "how"],
            rows=rows,
            note="Of attribute and data set over donors that were held out, of pairs that were held out together: an "
            "AUROC of 0.5 is chance, and what lies below it is noise, of which few donors make much. The adversary's "
            "own loss is no evidence.",
        )
    ]


def draw(
    history: Sequence[Record], labelled: Labelled, outcome: Mapping[str, Any], names: Sequence[str], folder: Path
) -> list[Figure]:
    """Confusion matrix, training curves, and maps of attention where there are any."""
    figures = [
        draw_test_confusion(folder, outcome, labelled),
        draw_training_metrics(
            folder, history, losses={"combined": "loss", "main": "main", "adversary": "adversary"},
            scores=CURVES,
            caption="Losses of steps and epochs, learning rate, and scores on validation rows.",
        ),
    ]  # fmt: skip
    attention = outcome.get("attention")
    if attention is None or attention["mean"].shape[-1] == 1:
        return figures
    samples = [AttentionSample(name, *maps) for name, *maps in zip(names, *attention["samples"], strict=True)]
    figures.append(draw_cross_attention(folder, samples))
    figures.append(
        draw_mean_attention(
            folder, attention["mean"], entropy=attention["entropy"], variation=attention["variation"],
            cells=attention["cells"], name="avg_text_to_gene_attention", noun=f"test {labelled.judged.noun}",
        )
    )  # fmt: skip
    return figures


def drawer(history: Sequence[Record], labelled: Labelled, outcome: Mapping[str, Any]) -> partial[list[Figure]]:
    """`draw`, waiting for its folder."""
    return partial(draw, history, labelled, outcome, sample_names(labelled, outcome))


def sample_names(labelled: Labelled, outcome: Mapping[str, Any]) -> list[str]:
    """The class and the name of each row whose attention is shown."""
    if "attention" not in outcome:
        return []
    label, judged = labelled.label, labelled.judged
    rows = np.flatnonzero(judged.split.parts == TEST)[outcome["attention"]["places"]]
    words = ["unknown" if label.codes[row] == MISSING else label.classes[label.codes[row]] for row in rows]
    return [f"{word}, {judged.row_ids[row]}" for word, row in zip(words, rows, strict=True)]


def _said(value: Value) -> str:
    if isinstance(value, Estimate):
        return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"
    return "undefined" if value is None else f"{value:.3f}"
