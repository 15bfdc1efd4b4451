"""The report of a fine-tuned classifier: scores on test rows read once, beside guesses that need no network."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from xfm.core.report import Estimate, Figure, Report, Table
from xfm.loops.evaluation.representations import CHANCE, MAJORITY
from xfm.loops.evaluation.split import TEST, TRAIN, VALIDATION
from xfm.loops.finetuning.rows import Labelled
from xfm.loops.finetuning.scores import F32, TASK, name_of, predicted
from xfm.loops.training.settings import Record, Settings, Trained
from xfm.loops.training.words import best_was_last, out_of_time
from xfm.metrics.classification import confusion_matrix, per_class
from xfm.plots.confusion import draw_confusion
from xfm.plots.layer_curve import Baseline
from xfm.plots.loss_curve import draw_loss_curve
from xfm.tasks.classification import Classification

METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "macro F1",
    "precision": "macro precision",
    "weighted_f1": "weighted F1",
}
WORDS = {TRAIN: "training", VALIDATION: "validation", TEST: "test"}
TRAINED = {
    "full": "all weights trained",
    "head": "only the head trained",
    "last_n": "the last {last_n} blocks trained",
    "lora": "low-rank updates trained",
}


def finetune_report(
    trained: Trained,
    settings: Settings,
    steps_per_epoch: int,
    task: Classification,
    labelled: Labelled,
    scores: pa.Table,
    run: Mapping[str, Any],
    *,
    notes: Sequence[str] = (),
    refused: Mapping[str, int],
) -> Report:
    """What a `finetune` left behind.

    Args:
        trained: what came out.
        settings: of training.
        steps_per_epoch: batches of one pass.
        task: what was learned.
        labelled: the rows.
        scores: as `scores.score_table` makes it.
        run: content of run.json.
        notes: sentences of the user, e.g. published numbers.
        refused: quarantine lines by code.
    """
    judged, label = labelled.judged, labelled.label
    own, recipe = name_of(task.mode), run["recipe"]
    kept, done = trained.best_step / steps_per_epoch, trained.steps / steps_per_epoch
    numbers: dict[str, Any] = {f"test {words}": score(scores, own, name, "test") for name, words in METRICS.items()}
    numbers |= {f"{word} {judged.noun}": len(labelled.held(part)) for part, word in WORDS.items()}
    numbers |= {
        "classes": len(label.classes),
        "epochs": round(done, 2),
        "epoch kept": round(kept, 2),
        "training seconds": round(trained.seconds, 1),
        f"{judged.noun} per second": round(trained.steps * settings.batch_size / max(trained.seconds, 1e-9), 1),
    }
    return Report(
        title=f"Fine-tuning: {label.name}",
        job="finetune",
        headline=headline(scores, labelled, task, done),
        numbers=numbers,
        tables=[summary(scores, labelled, own), classes(trained.outcome, labelled)],
        warnings=[*notes, *labelled.warnings, *cautions(trained, settings)],
        provenance={
            "choice": {label.name: {"representation": own, "chosen_on": "validation", "by": settings.watch}},
            "start": recipe["weights"],
            "data": recipe["data"],
            judged.noun: {f"sha256 of {judged.noun} and labels": recipe["cells"]},
            "versions": run["versions"],
        },
        refused=dict(refused),
    )


def headline(scores: pa.Table, labelled: Labelled, task: Classification, epochs: float) -> str:
    """One sentence: how well, on what, against what."""
    label, noun = labelled.label, labelled.judged.noun
    found, largest = (score(scores, name, "f1", "test") for name in (name_of(task.mode), MAJORITY))
    shown = f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]" if isinstance(found, Estimate) else f"{found:.3f}"
    guess = largest.value if isinstance(largest, Estimate) else largest
    trained = TRAINED[task.mode].format(last_n=task.last_n)
    return (
        f"After {epochs:.3g} epoch{'' if epochs == 1 else 's'} on {len(labelled.held(TRAIN)):,} {noun}, {trained}, "
        f"{label.name} is told with a macro F1 of {shown} on {len(labelled.held(TEST)):,} test {noun}, which were read "
        f"once; the largest class alone gives {guess:.3f}."
    )


def score(scores: pa.Table, representation: str, metric: str, split: str, task: str = TASK) -> Estimate | float:
    """One score with its interval, NaN where it is not defined."""
    wanted = {"representation": representation, "metric": metric, "split": split, "task": task}
    for name, value in wanted.items():
        scores = scores.filter(pc.equal(scores[name], value))
    (row,) = scores.select(["value", "low", "high"]).to_pylist()
    if row["value"] is None:
        return float("nan")
    return row["value"] if row["low"] is None else Estimate(**row)


def summary(scores: pa.Table, labelled: Labelled, own: str) -> Table:
    """Every score of the network and of the guesses, on validation and on test rows."""
    judged, words = labelled.judged, {own: "fine-tuned", MAJORITY: "largest class", CHANCE: "guessing by frequency"}
    rows = [
        [shown, split, *(score(scores, name, metric, split) for metric in METRICS)]
        for name, shown in words.items()
        for split in ("validation", "test")
    ]
    return Table(
        name="summary",
        caption=f"{labelled.label.name}: {len(labelled.label.classes)} classes, 95 % intervals over "
        f"{judged.resamples:,} resamples",
        columns=["prediction", "read on", *METRICS.values()],
        rows=[list(row) for row in rows],
        note="Macro averages; macro recall is balanced accuracy. The weights were chosen on validation "
        f"{judged.noun}; test {judged.noun} were read once, after the last step.",
        best=1,
    )


def classes(outcome: Mapping[str, F32], labelled: Labelled) -> Table:
    """Precision, recall and F1 of each class on test rows, the largest first."""
    judged, label = labelled.judged, labelled.label
    found = per_class(confusion(outcome, labelled))
    training = np.bincount(label.codes[labelled.held(TRAIN)], minlength=len(label.classes))
    rows: list[list[Any]] = [
        [label.classes[code], int(training[code]), int(found["support"][code]),
         *(_or_none(found[metric][code]) for metric in ("precision", "recall", "f1"))]
        for code in np.argsort(-found["support"], kind="stable")
    ]  # fmt: skip
    return Table(
        name="classes",
        caption=f"Each {label.name} on test {judged.noun}",
        columns=["class", f"training {judged.noun}", f"test {judged.noun}", "precision", "recall", "F1"],
        rows=rows,
        note=f"A class without test {judged.noun} enters no average.",
    )


def confusion(outcome: Mapping[str, F32], labelled: Labelled) -> NDArray[np.int64]:
    """(K, K) test rows by true and predicted class."""
    truth, k = labelled.label.codes[labelled.held(TEST)], len(labelled.label.classes)
    return confusion_matrix(truth, predicted(outcome, labelled).test, k)


def cautions(trained: Trained, settings: Settings) -> list[str]:
    """What a reader must know of how training ended."""
    return out_of_time(trained, settings) or best_was_last(trained, settings)


def draw(history: Sequence[Record], labelled: Labelled, outcome: Mapping[str, F32], folder: Path) -> list[Figure]:
    """The loss curve and the confusion matrix."""
    label, noun = labelled.label, labelled.judged.noun
    curve = draw_loss_curve(
        folder, "loss", history, ["loss"], [Baseline("guessing by frequency", by_frequency(labelled))],
        metric="cross entropy (nats)", title=f"Fine-tuning on {label.name}",
        caption=f"Loss while training: thin line training {noun}, thick line with markers validation {noun}.",
    )  # fmt: skip
    matrix = draw_confusion(
        folder, "confusion", confusion(outcome, labelled), label.classes, noun=noun,
        title=f"{label.name} on test {noun}",
        caption=f"True and predicted {label.name} of test {noun}; each row is shaded by its own shares.",
    )  # fmt: skip
    return [curve, matrix]


def drawer(history: Sequence[Record], labelled: Labelled, outcome: Mapping[str, F32]) -> partial[list[Figure]]:
    """`draw`, waiting for its folder."""
    return partial(draw, history, labelled, outcome)


def by_frequency(labelled: Labelled) -> float:
    """Cross entropy, in nats, of the training frequencies on training rows: what is reached without looking."""
    counts = np.bincount(labelled.label.codes[labelled.held(TRAIN)])
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
