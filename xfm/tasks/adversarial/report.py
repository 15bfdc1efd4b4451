"""The report of a donor classifier: what is told, beside what a data set alone tells, and what still leaks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from xfm.core.metric import FRESH, LEAKAGE, words_of
from xfm.core.parts import TEST
from xfm.core.report import Figure, Report, Table
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
from xfm.tasks.adversarial.settings import MOST_LOSS, AdversarialClassification
from xfm.training.report import ending, said
from xfm.training.settings import Record
from xfm.training.task import TrainingRun

OWN_SET = words_of(WITHIN)
CALIBRATION = {name: words_of(name) for name in ("log_loss", "ece")}
CURVES = ("validation_accuracy", "validation_f1", "validation_leakage_auroc")


PURPOSE = (
    "Telling donors apart is re-identification: it belongs to research on what public embeddings give away, and is not "
    "to be used on data of people who have not agreed to it."
)
SCHEMES = {
    "random_cell": "Cells were split at random: those of one library stand on both sides, and the scores are "
    "in-distribution.",
    "stratified_cell": "Cells were split inside each stratum of donor and cell type: those of one library stand on "
    "both sides, and the scores are in-distribution.",
    "held_out_types": "The test cells are of cell types that training never saw, of the same donors.",
}
DOUBLED = (
    "The adversary's sign is turned twice, as in the public model: behind the reversal its loss is also subtracted. "
    f"The network helps the adversary, which climbs its own loss (clipped at {MOST_LOSS:g} a row): nothing is "
    "unlearned."
)
CONSTANT = 1e-3  # mean total variation of attention below which its map says nothing of rows


def adversarial_report(
    run: TrainingRun, task: AdversarialClassification, scores: pa.Table, warnings: Sequence[str]
) -> Report:
    """What was found."""
    trained, settings, labelled, own = run.trained, run.settings, run.rows, name_of(task.mode)
    label = labelled.label
    numbers: dict[str, Any] = {f"test {words}": score(scores, own, name, "test") for name, words in METRICS.items()}
    for name, value in (
        (f"test {OWN_SET}", found_score(scores, own, WITHIN, "test", TASK)),
        *((f"test {words}", found_score(scores, own, name, "test", TASK)) for name, words in CALIBRATION.items()),
        (f"test {task.attribute} leakage AUROC", found_score(scores, own, "auroc", "test", LEAKAGE)),
    ):
        numbers |= {} if value is None else {name: value}
    numbers |= training_numbers(trained, run.steps_per_epoch, labelled)
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
        warnings=[*warnings, *labelled.warnings],
        provenance=classifier_provenance(
            run.run, labelled,
            {"representation": own, "chosen_on": "validation", "by": settings.watch or "the last step"},
        ),
        refused=dict(run.refused),
    )  # fmt: skip


def headline(scores: pa.Table, labelled: Labelled, task: AdversarialClassification) -> str:
    """One sentence: how well, against what, and what leaks."""
    own, label, noun = name_of(task.mode), labelled.label, labelled.judged.noun
    accuracy, largest = (said(score(scores, name, "accuracy", "test")) for name in (own, MAJORITY))
    told = [f"{label.name} is told of {len(labelled.held(TEST)):,} test {noun} with an accuracy of {accuracy} (the "
            f"largest class: {largest})"]  # fmt: skip
    within = found_score(scores, own, WITHIN, "test", TASK)
    if within is not None:
        oracle, chance = (said(found_score(scores, name, WITHIN, "test", TASK)) for name in (WITHIN_MAJORITY, CHANCE))
        told.append(f"within its {task.within} of {said(within)} (the largest there: {oracle}, chance: {chance})")
    leaked = found_score(scores, own, "auroc", "test", LEAKAGE)
    if leaked is not None:
        trained = "after training against it" if task.is_adversarial else "without an adversary"
        told.append(f"{trained}, a fresh probe reads {task.attribute} of {label.name}s that the network was "
                    f"trained with, and the probe was not, with an AUROC of {said(leaked)}")  # fmt: skip
    return "; ".join(told) + "."


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
            note="Of attribute and data set over donors that were held out from the probe, of pairs that were held out "
            "together: an AUROC of 0.5 is chance, and what lies below it is noise, of which few donors make much. The "
            "network was trained with these donors, and knows them: of new ones it may leak less, or more; embed them "
            "with the checkpoint and read it there (evaluate --leakage). The adversary's own loss is no evidence.",
        )
    ]


def draw(history: Sequence[Record], labelled: Labelled, outcome: Mapping[str, Any], folder: Path) -> list[Figure]:
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
    named = zip(sample_names(labelled, outcome), *attention["samples"], strict=True)
    samples = [AttentionSample(name, *maps) for name, *maps in named]
    figures.append(draw_cross_attention(folder, samples))
    figures.append(
        draw_mean_attention(
            folder, attention["mean"], entropy=attention["entropy"], variation=attention["variation"],
            cells=attention["cells"], name="avg_text_to_gene_attention", noun=f"test {labelled.judged.noun}",
        )
    )  # fmt: skip
    return figures


def sample_names(labelled: Labelled, outcome: Mapping[str, Any]) -> list[str]:
    """The class and the name of each row whose attention is shown."""
    if "attention" not in outcome:
        return []
    label, judged = labelled.label, labelled.judged
    rows = np.flatnonzero(judged.split.parts == TEST)[outcome["attention"]["places"]]
    words = ["unknown" if label.codes[row] == MISSING else label.classes[label.codes[row]] for row in rows]
    return [f"{word}, {judged.row_ids[row]}" for word, row in zip(words, rows, strict=True)]


def cautions(run: TrainingRun, task: AdversarialClassification, scheme: str | None) -> list[str]:
    """What a reader must know before believing that donors can be told, or that an attribute was unlearned, the gravest
    first; `scheme` of the split where the source says so."""
    found = []
    if task.is_adversarial and task.reversal == "reference":
        found.append(DOUBLED)
    found += [PURPOSE] if "donor" in task.label else []
    found += _of_attribute(task, run.rows)
    found += _of_strength(run, task)
    found += [SCHEMES[scheme]] if scheme in SCHEMES else []
    return [*found, *ending(run)]


def _of_strength(run: TrainingRun, task: AdversarialClassification) -> list[str]:
    """A warning where the weights that are kept met a weak adversary."""
    step, steps = run.trained.best_step, run.settings.steps
    strength = task.strength(step / steps) if task.is_adversarial else task.lambda_adv
    if strength >= task.lambda_adv / 2:
        return []
    return [f"The weights that are kept are those of step {step:,} of {steps:,}, where the "
            f"reversal had a strength of {strength:.3g}, less than half of --task.lambda_adv {task.lambda_adv:g}: they "
            "were hardly trained against it. Leave out --watch and --patience to keep those of the last step, or add "
            "--no-task.ramp"]  # fmt: skip


def _of_attribute(task: AdversarialClassification, labelled: Labelled) -> list[str]:
    attribute, label = labelled.also_read(task.attribute), labelled.label
    if attribute is None:
        return []
    held = (attribute.codes != MISSING) & (label.codes != MISSING)
    pairs = np.unique(np.stack([label.codes[held], attribute.codes[held]]), axis=1)
    found = []
    if len(attribute.classes) < 2:
        found.append(f"{attribute.name} has {len(attribute.classes)} class: there is nothing to unlearn or to measure.")
    elif several := pairs.shape[1] - len(np.unique(pairs[0])):
        found.append(
            f"{label.name} has classes of several {attribute.name} ({several:,} more pairs than classes): they are "
            f"left out where leakage is read, which needs {label.name}s of one {attribute.name} to hold out."
        )
    else:
        found.append(
            f"{attribute.name} is a function of {label.name}: whoever tells the {label.name} knows it. What can be "
            f"unlearned is what {label.name}s of one {attribute.name} share; leakage is read in {label.name}s that "
            "were held out from the probe, and that the network was trained with."
        )
    if missing := int((attribute.codes == MISSING).sum()):
        found.append(f"{missing:,} {labelled.judged.noun} have no known {attribute.name}: the adversary left them out.")
    return found


def attention_words(attention: Mapping[str, Any] | None, noun: str) -> list[str]:
    """A warning where every row has the same map of attention."""
    variation = None if attention is None else attention["variation"]
    if variation is None or variation >= CONSTANT:
        return []
    return [f"Attention between the latents is the same for all test {noun} (mean total variation {variation:.2g}): "
            "its map shows parameters, not cells."]  # fmt: skip
