"""Pictures of a regression: the loss curve, and predicted against true numbers of test rows."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from xfm.core.parts import TEST
from xfm.core.report import Figure
from xfm.judging.eval_set import sample_rows
from xfm.plots.axes import COLOURS, GREY, dress, new_axes, save_plot
from xfm.plots.layer_curve import Baseline
from xfm.plots.training_curves import draw_loss_curve
from xfm.tasks.regression.rows import RegressionRows
from xfm.tasks.regression.scores import F32, F64, predicted
from xfm.training.settings import Record

MOST = 20_000  # dots


def drawer(history: Sequence[Record], rows: RegressionRows, outcome: Mapping[str, F32]) -> partial[list[Figure]]:
    """`draw`, waiting for its folder."""
    return partial(draw, history, rows, outcome)


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
    """Writes plots/predicted.png and plots/predicted.csv below `folder`.

    Args:
        folder: of the job.
        row_ids: of N test rows.
        truth, found: (N,) true and predicted numbers.
        name: of the column.
        noun: what rows are called.
    """
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
