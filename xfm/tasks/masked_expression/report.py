"""The report of a pretraining run: what it reached on cells it never saw, and what needs no model to reach."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfm.core.report import Figure, Report, Table
from xfm.metrics.resampling import GroupDraws, bootstrap, estimate, ratios, weighted_sums
from xfm.plots.layer_curve import Baseline
from xfm.plots.training_curves import draw_loss_curve
from xfm.tasks.masked_expression.settings import OBJECTIVES, Objectives
from xfm.tasks.masked_expression.validation import SCORES
from xfm.training.report import out_of_time, pretraining_numbers, provenance, rate
from xfm.training.settings import Record
from xfm.training.task import TrainingRun

F64 = NDArray[np.float64]
RESAMPLES = 1000
LABELS = {
    "masked": "model: masked",
    "cell": "model: from the cell vector",
    "prompt": "model: cell prompt",
    "gene_mean": "mean of the gene",
    "cell_mean": "mean of the cell",
}


def score_table(scores: F64, seed: int) -> Table:
    """Mean squared error and skill of each prediction, with 95 % intervals over cells; scores (C, 6) as in SCORES."""
    names = [name for name in SCORES[1:] if np.isfinite(scores[:, SCORES.index(name)]).all()]
    draws = GroupDraws(np.arange(len(scores)), seed, RESAMPLES)

    def statistic(weights: NDArray[Any]) -> dict[str, F64]:
        totals = dict(zip(SCORES, weighted_sums(weights, scores).T, strict=True))
        errors = {name: ratios(totals[name], totals["n"]) for name in names}
        return errors | {f"skill {name}": 1 - ratios(totals[name], totals["gene_mean"]) for name in names}

    found = {name: estimate(*one, len(scores)) for name, one in bootstrap(draws, statistic).items()}
    rows: list[list[Any]] = [
        [LABELS[name], found[name], None if name == "gene_mean" else found[f"skill {name}"]] for name in names
    ]
    errors = scores.sum(axis=0)
    return Table(
        name="validation",
        caption=f"Hidden genes of {len(scores):,} validation cells, 95 % intervals over cells",
        columns=["prediction", "MSE (bins²)", "skill over the gene's mean"],
        rows=rows,
        note="skill = 1 - MSE / MSE of the gene's mean over training cells; above 0 the model knows more than that. "
        "The mean of the cell is that of the genes it shows.",
        best=int(np.argmin([errors[SCORES.index(name)] for name in names])),
    )


def pretrain_report(run: TrainingRun, objectives: Objectives) -> Report:
    """What a `pretrain` left behind."""
    trained, settings = run.trained, run.settings
    scores: F64 = trained.outcome["scores"]
    numbers = pretraining_numbers(run, "cells") | rate(run, "cells")
    if run.genes:
        numbers["genes in the vocabulary"] = run.genes["matched"]
    tables: list[Table] = []
    headline = f"{trained.steps:,} steps over {run.n_training:,} cells; no cell was held out to judge them on."
    if len(scores):
        tables = [score_table(scores, settings.seed)]
        sums = scores.sum(axis=0)
        mse, mean = sums[1] / sums[0], sums[SCORES.index("gene_mean")] / sums[0]
        verdict = f"{1 - mse / mean:.1%} below" if mse < mean else "no better than"
        headline = (
            f"After {trained.steps:,} steps on {run.n_training:,} cells, hidden genes of unseen cells are predicted "
            f"with an MSE of {mse:.4g} bins², {verdict} the gene's mean ({mean:.4g})."
        )
    warnings = out_of_time(run)
    if trained.history and objectives.weights[2] and trained.steps <= objectives.prompt_after:
        warnings.append(f"Generation by cell prompt begins after step {objectives.prompt_after:,}: it was not trained.")
    return Report(
        title="Pretraining of scGPT",
        job="pretrain",
        headline=headline,
        numbers=numbers,
        tables=tables,
        warnings=warnings,
        provenance=provenance(run),
        refused=dict(run.refused),
    )


def draw(history: Sequence[Record], scores: F64, folder: Path) -> list[Figure]:
    """The loss curve, baselines included."""
    baselines = []
    if len(scores):
        means = scores.sum(axis=0) / scores[:, 0].sum()
        baselines = [Baseline(LABELS[name], float(means[SCORES.index(name)])) for name in SCORES[-2:]]
    names = [name for name in OBJECTIVES if any(name in record for record in history)]
    figure = draw_loss_curve(
        folder, "loss", history, names, baselines, metric="MSE of hidden genes (bins²)", title="Pretraining",
        caption="Error on hidden genes while training: thin lines training cells, thick lines with markers validation "
        "cells; dashed: guesses that need no model, on validation cells.",
    )  # fmt: skip
    return [figure]
