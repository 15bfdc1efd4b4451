"""The report of a fine-tuned classifier: scores on test rows read once, beside guesses that need no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from xfm.core.parts import TEST, TRAIN
from xfm.core.report import Estimate, Figure, Report, Table
from xfm.judging.classifier_report import (
    METRICS,
    classes,
    classifier_provenance,
    draw_test_confusion,
    score,
    training_numbers,
)
from xfm.judging.classifier_scores import F32, name_of
from xfm.judging.labelled import Labelled
from xfm.judging.representations import CHANCE, MAJORITY
from xfm.plots.layer_curve import Baseline
from xfm.plots.training_curves import draw_loss_curve
from xfm.tasks.classification.settings import Classification
from xfm.training.report import ending, rate, said
from xfm.training.settings import Record
from xfm.training.task import TrainingRun


def finetune_report(run: TrainingRun, task: Classification, scores: pa.Table) -> Report:
    """What a `finetune` left behind."""
    labelled, own = run.rows, name_of(task.mode)
    numbers: dict[str, Any] = {f"test {words}": score(scores, own, name, "test") for name, words in METRICS.items()}
    numbers |= training_numbers(run.trained, run.steps_per_epoch, labelled) | rate(run, labelled.judged.noun)
    return Report(
        title=f"Fine-tuning: {labelled.label.name}",
        job="finetune",
        headline=headline(scores, labelled, task, run.trained.steps / run.steps_per_epoch),
        numbers=numbers,
        tables=[summary(scores, labelled, own), classes(run.trained.outcome, labelled)],
        warnings=[*labelled.warnings, *ending(run)],
        provenance=classifier_provenance(
            run.run, labelled, {"representation": own, "chosen_on": "validation", "by": run.settings.watch}
        ),
        refused=dict(run.refused),
    )


def headline(scores: pa.Table, labelled: Labelled, task: Classification, epochs: float) -> str:
    """One sentence: how well, on what, against what."""
    label, noun = labelled.label, labelled.judged.noun
    found, largest = (score(scores, name, "f1", "test") for name in (name_of(task.mode), MAJORITY))
    guess = largest.value if isinstance(largest, Estimate) else largest
    trained = f"{len(labelled.held(TRAIN)):,} {noun}, {task.trained_words}"
    return (
        f"After {epochs:.3g} epoch{'' if epochs == 1 else 's'} on {trained}, {label.name} is told with a macro F1 of "
        f"{said(found)} on {len(labelled.held(TEST)):,} test {noun}, which were read once; the largest class alone "
        f"gives {guess:.3f}."
    )


def summary(scores: pa.Table, labelled: Labelled, own: str) -> Table:
    """Every score of the network and of the guesses, on validation and on test rows."""
    judged, words = labelled.judged, {own: "fine-tuned", MAJORITY: "largest class", CHANCE: "guessing by frequency"}
    return Table(
        name="summary",
        caption=f"{labelled.label.name}: {len(labelled.label.classes)} classes, 95 % intervals over "
        f"{judged.resamples:,} resamples",
        columns=["prediction", "read on", *METRICS.values()],
        rows=[
            [shown, split, *(score(scores, name, metric, split) for metric in METRICS)]
            for name, shown in words.items()
            for split in ("validation", "test")
        ],
        note="Macro averages; macro recall is balanced accuracy. The weights were chosen on validation "
        f"{judged.noun}; test {judged.noun} were read once, after the last step.",
        best=1,
    )


def draw(history: Sequence[Record], labelled: Labelled, outcome: Mapping[str, F32], folder: Path) -> list[Figure]:
    """The loss curve and the confusion matrix."""
    label, noun = labelled.label, labelled.judged.noun
    curve = draw_loss_curve(
        folder, "loss", history, ["loss"], [Baseline("guessing by frequency", by_frequency(labelled))],
        metric="cross entropy (nats)", title=f"Fine-tuning on {label.name}",
        caption=f"Loss while training: thin line training {noun}, thick line with markers validation {noun}.",
    )  # fmt: skip
    return [curve, draw_test_confusion(folder, outcome, labelled)]


def by_frequency(labelled: Labelled) -> float:
    """Cross entropy, in nats, of the training frequencies on training rows: what is reached without looking."""
    counts = np.bincount(labelled.label.codes[labelled.held(TRAIN)])
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
