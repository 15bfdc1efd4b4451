"""The report of an adapted CLIP: what adapting gained where it was trained, and what it cost elsewhere."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xfm.core.parts import TEST, VALIDATION
from xfm.core.report import Figure, Report, Table
from xfm.judging.classifier_report import classes, classifier_provenance, draw_test_confusion
from xfm.judging.comparison import BEATS
from xfm.judging.labelled import Labelled
from xfm.metrics.resampling import estimate
from xfm.models.clip.prompts import Prompts
from xfm.plots.layer_curve import Baseline
from xfm.plots.training_curves import ShareSeries, draw_loss_curve, draw_share_curve
from xfm.tasks.class_prompts.scores import SCORES, Adapted, ShareScores, at_share, shown
from xfm.tasks.class_prompts.settings import ClassPromptTuning
from xfm.training.report import out_of_time
from xfm.training.settings import Record, Trained
from xfm.training.task import TrainingRun

TOWERS = {"image": "image tower", "text": "text tower", "both": "both towers"}


def class_prompts_report(
    run: TrainingRun,
    task: ClassPromptTuning,
    prompts: Prompts,
    labelled: Labelled,
    adapted: Adapted,
    warnings: Sequence[str],
) -> Report:
    """What a `finetune` by class prompts left behind, of rows whose label knows every class that is asked for."""
    judged, label, trained = labelled.judged, labelled.label, run.trained
    counts, test = trained.outcome["shots"], adapted.test
    numbers: dict[str, Any] = {
        "test accuracy, adapted": shown(test.accuracy[adapted.chosen]),
        "test accuracy, zero-shot": shown(test.accuracy[0]),
        "share of the update": adapted.share,
        f"training {judged.noun}": int(counts.sum()),
        f"validation {judged.noun}": len(labelled.held(VALIDATION)),
        f"test {judged.noun}": len(labelled.held(TEST)),
        "classes": len(label.classes),
        "trained numbers": sum(trained.outcome["trained"].values()),
        "steps": trained.steps,
        "training seconds": round(trained.seconds, 1),
    }
    if adapted.forgetting is not None:
        numbers |= {
            "forgetting: accuracy, adapted": shown(adapted.forgetting.accuracy[adapted.chosen]),
            "forgetting: accuracy, zero-shot": shown(adapted.forgetting.accuracy[0]),
        }
    return Report(
        title=f"Adapting CLIP: {label.name}",
        job="finetune",
        headline=_headline(task, labelled, adapted, int(counts.sum())),
        numbers=numbers,
        tables=[
            _summary(labelled, adapted),
            _by_share(adapted, judged.noun),
            classes(at_share(trained.outcome, adapted.chosen), labelled),
            _effort(trained, task, prompts, judged.noun),
            _prompts(prompts),
        ],
        warnings=[*labelled.warnings, *warnings, *_cautions(run, adapted, counts, task)],
        provenance=classifier_provenance(
            run.run, labelled, {"share": adapted.share, "chosen_on": "validation", "by": "accuracy"}
        ),
        refused=dict(run.refused),
    )


def _headline(task: ClassPromptTuning, labelled: Labelled, adapted: Adapted, images: int) -> str:
    gain, test, noun = adapted.difference["accuracy"], adapted.test.accuracy, labelled.judged.noun
    shots = "all training" if task.shots == "all" else f"{task.shots} {'shots' if task.shots > 1 else 'shot'},"
    said = (
        f"{shots} {images:,} {noun}: with updates of the {TOWERS[task.tower]} {labelled.label.name} is told with an "
        f"accuracy of {test[adapted.chosen].value:.3f} on {len(labelled.held(TEST)):,} test {noun}, zero-shot "
        f"{test[0].value:.3f} (difference {gain.difference.words('+.3f')}, p {gain.p:.2g}: {gain.words})"
    )
    if adapted.forgetting is not None:
        before, after = adapted.forgetting.accuracy[0], adapted.forgetting.accuracy[adapted.chosen]
        said += f"; on the other {noun} accuracy went from {before.value:.3f} to {after.value:.3f}"
    return f"{said[0].upper()}{said[1:]}."


def _summary(labelled: Labelled, adapted: Adapted) -> Table:
    judged = labelled.judged
    rows: list[list[Any]] = []
    for name, place in (("adapted", adapted.chosen), ("zero-shot", 0)):
        rows.append([name, *(shown(side[place]) for side in (adapted.test.accuracy, adapted.test.recall))])
    gains = [adapted.difference[metric] for metric in SCORES]
    rows.append(["difference", *(g.difference for g in gains)])
    rows.append(["p, no difference", *(g.p for g in gains)])
    return Table(
        name="summary",
        caption=f"Zero-shot and adapted on {len(labelled.held(TEST)):,} test {judged.noun}, 95 % intervals over "
        f"{judged.resamples:,} resamples",
        columns=["network", *SCORES.values()],
        rows=rows,
        note=f"Adapted: {adapted.share:g} of the update, chosen on validation {judged.noun}. The difference is paired "
        f"{judged.noun} by {judged.noun}; p swaps the two networks' predictions.",
        best=0 if gains[0].verdict == BEATS else None,
    )


def _by_share(adapted: Adapted, noun: str) -> Table:
    sides: list[tuple[str, ShareScores]] = [("test", adapted.test)]
    if adapted.validation is not None:
        sides.insert(0, ("validation", adapted.validation))
    if adapted.forgetting is not None:
        sides.append((f"other {noun}", adapted.forgetting))
    rows: list[list[Any]] = [
        [f"{share:g}", *(shown(scores.accuracy[place]) for _, scores in sides)]
        for place, share in enumerate(adapted.shares)
    ]
    return Table(
        name="shares",
        caption="Accuracy at each share of the update: 0 is the pretrained network, 1 the adapted one",
        columns=["share", *(name for name, _ in sides)],
        rows=rows,
        note=f"Bold: chosen on validation {noun} alone. All shares are shown on test {noun}; the best of them there is "
        "no result.",
        best=adapted.chosen,
    )


def _effort(trained: Trained, task: ClassPromptTuning, prompts: Prompts, noun: str) -> Table:
    counts: np.ndarray[Any, Any] = trained.outcome["shots"]
    fewest, most = int(counts.min()), int(counts.max())
    rows: list[list[Any]] = [[f"trained numbers, {name} tower", n] for name, n in trained.outcome["trained"].items()]
    rows += [
        ["rank", task.rank],
        ["alpha", task.alpha],
        ["dropout", task.dropout],
        [f"training {noun} of a class", f"{fewest}" if fewest == most else f"{fewest} to {most}"],
        ["sentences of a class", max(len(own) for own in prompts.texts)],
        ["random crops", "none" if not task.augment else "yes, mirrored" if task.flip else "yes"],
    ]
    return Table(name="effort", caption="What was trained, on what", columns=["", "value"], rows=rows)


def _prompts(prompts: Prompts) -> Table:
    rows: list[list[Any]] = [
        [value, name, own[0] + (f" (and {len(own) - 1} more)" if len(own) > 1 else "")]
        for value, name, own in zip(prompts.values, prompts.names, prompts.texts, strict=True)
    ]
    return Table(name="prompts", caption="What stood for each class", columns=["class", "name", "sentence"], rows=rows)


def _cautions(run: TrainingRun, adapted: Adapted, counts: Any, task: ClassPromptTuning) -> list[str]:
    found = out_of_time(run)
    if task.shots != "all" and (few := int((counts < task.shots).sum())):
        found.append(f"{few} of {len(counts)} classes have fewer than {task.shots} training images.")
    if adapted.validation is None:
        found.append("No validation images: the whole update is taken, whatever it costs.")
    elif adapted.share == 0:
        found.append("No share of the update was better than none on validation: the pretrained network is kept.")
    return found


def draw(
    history: Sequence[Record], labelled: Labelled, outcome: Mapping[str, Any], adapted: Adapted, folder: Path
) -> list[Figure]:
    """Scores by share, the loss curve and the confusion matrix."""
    label, noun = labelled.label, labelled.judged.noun
    series = [_series(f"test {noun}", adapted.test)]
    series += [] if adapted.forgetting is None else [_series(f"other {noun}", adapted.forgetting)]
    sweep = draw_share_curve(
        folder, "shares", adapted.shares, series, chosen=adapted.share, metric="accuracy",
        title="From zero-shot to adapted",
        caption=f"Accuracy on test {noun}"
        + ("" if adapted.forgetting is None else f" and on the other {noun}")
        + " as the update is scaled from nothing to all of it; bands are 95 % intervals.",
    )  # fmt: skip
    guess = float(np.log(len(label.classes)))
    curve = draw_loss_curve(
        folder, "loss", history, ["loss"], [Baseline("guessing", guess)], metric="cross entropy (nats)",
        title=f"Adapting to {label.name}",
        caption=f"Loss while training: thin line training {noun}, cropped and with dropout, thick line with markers "
        f"validation {noun}; dashed: all classes alike, log {len(label.classes)}.",
    )  # fmt: skip
    return [sweep, curve, draw_test_confusion(folder, at_share(outcome, adapted.chosen), labelled, ", adapted")]


def _series(name: str, scores: ShareScores) -> ShareSeries:
    found = [estimate(*each) for each in scores.accuracy]
    ends = [(one.value, *one.ends) for one in found if one is not None]
    return ShareSeries(name, *(list(column) for column in zip(*ends, strict=True)))
