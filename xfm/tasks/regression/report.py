"""The report of a regression: scores on test rows read once, next to the mean of training rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from xfm.core.metric import words_of
from xfm.core.parts import PARTS, TEST, TRAIN
from xfm.core.report import Figure, Report, Table
from xfm.judging.classifier_report import score
from xfm.judging.classifier_scores import name_of
from xfm.judging.eval_set import sample_rows
from xfm.judging.representations import MEAN
from xfm.metrics.regression import SCORES
from xfm.plots.axes import COLOURS, GREY, dress, new_axes, save_plot
from xfm.plots.layer_curve import Baseline
from xfm.plots.training_curves import draw_loss_curve
from xfm.tasks.regression.rows import F32, F64, RegressionRows, predicted
from xfm.tasks.regression.settings import Regression
from xfm.training.report import ending, rate, said
from xfm.training.settings import Record
from xfm.training.task import TrainingRun

MOST = 20_000  # dots
METRICS = {name: words_of(name) for name in SCORES}


def regression_report(run: TrainingRun, task: Regression, scores: pa.Table) -> Report:
    """What a regression left behind."""
    trained, rows, own, recipe = run.trained, run.rows, name_of(task.mode), run.run["recipe"]
    noun, name, done = rows.judged.noun, rows.target.name, trained.steps / run.steps_per_epoch
    numbers: dict[str, Any] = {f"test {words}": score(scores, own, metric, "test") for metric, words in METRICS.items()}
    numbers |= {f"{part.adjective} {noun}": len(rows.held(part)) for part in PARTS}
    numbers |= {
        f"mean {name} in training": rows.scale.mean,
        f"deviation of {name} in training": rows.scale.deviation,
        "epochs": round(done, 2),
        "epoch kept": round(trained.best_step / run.steps_per_epoch, 2),
        "training seconds": round(trained.seconds, 1),
    }
    return Report(
        title=f"Fine-tuning: {name}",
        job="finetune",
        headline=headline(scores, rows, task, done),
        numbers=numbers | rate(run, noun),
        tables=[summary(scores, rows, own)],
        warnings=[*rows.warnings, *ending(run)],
        provenance={
            "choice": {name: {"representation": own, "chosen_on": "validation", "by": run.settings.watch}},
            "start": recipe["weights"],
            "data": recipe["data"],
            noun: {f"sha256 of {noun} and targets": recipe["cells"]},
            "versions": run.run["versions"],
        },
        refused=dict(run.refused),
    )


def headline(scores: pa.Table, rows: RegressionRows, task: Regression, epochs: float) -> str:
    """One sentence: how well, on what, against what."""
    name, noun, own = rows.target.name, rows.judged.noun, name_of(task.mode)
    r2, mae = (said(score(scores, own, metric, "test"), ".3g") for metric in ("r2", "mae"))
    guess = said(score(scores, MEAN, "mae", "test"), ".3g")
    return (
        f"After {epochs:.3g} epoch{'' if epochs == 1 else 's'} on {len(rows.held(TRAIN)):,} {noun}, "
        f"{task.trained_words}, {name} is predicted with an R² of {r2} and a mean absolute error of {mae} on "
        f"{len(rows.held(TEST)):,} test {noun}, which were read once; the mean of the training {noun} errs by {guess}."
    )


def summary(scores: pa.Table, rows: RegressionRows, own: str) -> Table:
    """Every score of the network and of the mean, on validation and on test rows."""
    judged, words = rows.judged, {own: "fine-tuned", MEAN: f"mean of training {rows.judged.noun}"}
    return Table(
        name="summary",
        caption=f"{rows.target.name}: 95 % intervals over {judged.resamples:,} resamples",
        columns=["prediction", "read on", *METRICS.values()],
        rows=[
            [shown, split, *(score(scores, name, metric, split) for metric in METRICS)]
            for name, shown in words.items()
            for split in ("validation", "test")
        ],
        note=f"Errors are in the unit of {rows.target.name}. A prediction that is the same for all has no correlation. "
        f"The weights were chosen on validation {judged.noun}; test {judged.noun} were read once, after the last step.",
        best=1,
    )


def draw(history: Sequence[Record], rows: RegressionRows, outcome: Mapping[str, F32], folder: Path) -> list[Figure]:
    """The loss curve and the scatter plot."""
    name, noun = rows.target.name, rows.judged.noun
    curve = draw_loss_curve(
        folder, "loss", history, ["loss"], [Baseline("mean of training rows", 1.0)],
        metric="squared error (variances)", title=f"Fine-tuning on {name}",
        caption=f"Loss while training: thin line training {noun}, thick line with markers validation {noun}. 1 is the "
        "variance of the training rows.",
    )  # fmt: skip
    held = rows.held(TEST)
    own = predicted(outcome, rows, TEST)[np.isin(rows.judged.split.where(TEST), held)]
    row_ids = [rows.judged.row_ids[row] for row in held]
    return [curve, draw_predictions(folder, row_ids, rows.target.values[held], own, name, noun)]


def draw_predictions(folder: Path, row_ids: Sequence[str], truth: F64, found: F64, name: str, noun: str) -> Figure:
    """Writes plots/predicted.png and plots/predicted.csv below `folder`, from (N,) true and predicted numbers."""
    shown = sample_rows(row_ids, MOST)
    low, high = (float(end) for end in np.quantile(np.concatenate([truth, found]), [0, 1]))
    margin = 0.05 * (high - low or 1.0)
    canvas, axes = new_axes(5.2, 5.0, (0.16, 0.13, 0.8, 0.78))
    axes.plot([low, high], [low, high], color=GREY, linewidth=1.2, linestyle="--", zorder=2)
    axes.scatter(
        truth[shown], found[shown], s=float(np.clip(6000 / len(shown), 2.0, 22.0)), color=COLOURS[0], linewidths=0,
        alpha=float(np.clip(1.15 - 0.22 * np.log10(len(shown)), 0.2, 0.9)), rasterized=True, zorder=3,
    )  # fmt: skip
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(low - margin, high + margin)
    dress(axes, x=f"true {name}", y=f"predicted {name}", title=f"{name} of test {noun}")
    few = f"; {len(shown):,} of {len(truth):,} are drawn" if len(shown) < len(truth) else ""
    return save_plot(
        canvas, folder, "predicted", ["row_id", "true", "predicted"],
        zip(row_ids, truth.tolist(), found.tolist(), strict=True), colours=256,
        caption=f"Predicted against true {name}, a dot for each of the test {noun}{few}. On the dashed line both are "
        "the same.",
    )  # fmt: skip
