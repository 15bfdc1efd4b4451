"""The report of a regression: scores on test rows read once, next to the mean of training rows."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from xfm.core.metric import words_of
from xfm.core.parts import PARTS, TEST, TRAIN
from xfm.core.report import Estimate, Report, Table
from xfm.judging.classifier_report import score
from xfm.judging.classifier_scores import name_of
from xfm.judging.representations import MEAN
from xfm.metrics.regression import SCORES
from xfm.tasks.regression.rows import RegressionRows
from xfm.tasks.regression.settings import Regression
from xfm.training.report import best_was_last, out_of_time
from xfm.training.settings import Settings, Trained

METRICS = {name: words_of(name) for name in SCORES}


def regression_report(
    trained: Trained,
    settings: Settings,
    steps_per_epoch: int,
    task: Regression,
    rows: RegressionRows,
    scores: pa.Table,
    run: Mapping[str, Any],
    *,
    refused: Mapping[str, int],
) -> Report:
    """What a regression left behind.

    Args:
        trained: what came out.
        settings: of training.
        steps_per_epoch: batches of one pass.
        task: what was learned.
        rows: their numbers and parts.
        scores: as `scores.score_table` makes it.
        run: content of run.json.
        refused: quarantine lines by code.
    """
    judged, name, own, recipe = rows.judged, rows.target.name, name_of(task.mode), run["recipe"]
    kept, done = trained.best_step / steps_per_epoch, trained.steps / steps_per_epoch
    numbers: dict[str, Any] = {f"test {words}": score(scores, own, metric, "test") for metric, words in METRICS.items()}
    numbers |= {f"{part.adjective} {judged.noun}": len(rows.held(part)) for part in PARTS}
    numbers |= {
        f"mean {name} in training": rows.scale.mean,
        f"deviation of {name} in training": rows.scale.deviation,
        "epochs": round(done, 2),
        "epoch kept": round(kept, 2),
        "training seconds": round(trained.seconds, 1),
        f"{judged.noun} per second": round(trained.steps * settings.batch_size / max(trained.seconds, 1e-9), 1),
    }
    return Report(
        title=f"Fine-tuning: {name}",
        job="finetune",
        headline=headline(scores, rows, task, done),
        numbers=numbers,
        tables=[summary(scores, rows, own)],
        warnings=[*rows.warnings, *(out_of_time(trained, settings) or best_was_last(trained, settings))],
        provenance={
            "choice": {name: {"representation": own, "chosen_on": "validation", "by": settings.watch}},
            "start": recipe["weights"],
            "data": recipe["data"],
            judged.noun: {f"sha256 of {judged.noun} and targets": recipe["cells"]},
            "versions": run["versions"],
        },
        refused=dict(refused),
    )


def headline(scores: pa.Table, rows: RegressionRows, task: Regression, epochs: float) -> str:
    """One sentence: how well, on what, against what."""
    name, noun, own = rows.target.name, rows.judged.noun, name_of(task.mode)
    r2, mae = (_shown(score(scores, own, metric, "test")) for metric in ("r2", "mae"))
    guess = _shown(score(scores, MEAN, "mae", "test"))
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


def _shown(found: Estimate | float) -> str:
    if isinstance(found, Estimate):
        return f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]"
    return f"{found:.3g}"
