"""The report of a trained CLIP: does an image find its caption, beside guessing and beside the network before."""

from collections.abc import Mapping, Sequence
from math import log
from pathlib import Path
from typing import Any

import numpy as np

from xfm.core.report import Estimate, Figure, Report, Table
from xfm.metrics.resampling import Resampled, estimate
from xfm.plots.layer_curve import Baseline
from xfm.plots.training_curves import draw_loss_curve
from xfm.training.report import gained, out_of_time, pretraining_numbers, provenance, rate, recall
from xfm.training.settings import Record
from xfm.training.task import TrainingRun

RETRIEVAL = "R@1, image to caption"


def contrastive_report(run: TrainingRun, *, start: str, identity: Mapping[str, Any], match: str) -> Report:
    """What a contrastive `pretrain` left behind.

    Args:
        start: what the network was before, in words.
        identity: of its weights, or what they follow from.
    """
    trained, outcome, seed = run.trained, run.trained.outcome, run.settings.seed
    numbers = pretraining_numbers(run, "images") | rate(run, "images")
    tables: list[Table] = []
    headline = f"{trained.steps:,} steps over {run.n_training:,} images; none was held out to judge them on."
    if outcome["images"]:
        after, before = (recall(outcome[name], np.arange(outcome["images"]), seed) for name in ("hits", "hits_before"))
        numbers |= {RETRIEVAL: estimate(*after) or after.value, "chance of that": outcome["chance"]}
        tables = [_table(outcome, start, match, after, before)]
        headline = (
            f"After {trained.steps:,} steps on {run.n_training:,} images, {after.value:.1%} of {outcome['images']:,} "
            f"held-out images find a caption of their {match}; {start} {before.value:.1%}, guessing "
            f"{outcome['chance']:.1%} ({gained(after, before)})."
        )
    return Report(
        title="Pretraining of CLIP",
        job="pretrain",
        headline=headline,
        numbers=numbers,
        tables=tables,
        warnings=out_of_time(run),
        provenance=provenance(run) | {"start": dict(identity)},
        refused=dict(run.refused),
    )


def draw(history: Sequence[Record], batch: int, folder: Path) -> list[Figure]:
    """The loss curve beside what guessing pays."""
    figure = draw_loss_curve(
        folder, "loss", history, ["loss"], [Baseline("guessing", log(batch))], metric="contrastive loss (nats)",
        title="Pretraining",
        caption="Contrastive loss while training: thin line training pairs, thick line with markers validation pairs "
        f"in batches of the same size; dashed: a network that cannot tell {batch} pairs apart, log {batch}.",
    )  # fmt: skip
    return [figure]


def _table(outcome: Mapping[str, Any], start: str, match: str, after: Resampled, before: Resampled) -> Table:
    chance: float | Estimate = outcome["chance"]
    rows: list[list[Any]] = [
        ["trained", estimate(*after), outcome["loss"]],
        [start, estimate(*before), outcome["loss_before"]],
        ["guessing", chance, None],
    ]
    return Table(
        name="retrieval_summary",
        caption=f"{outcome['images']:,} validation images among {outcome['captions']:,} different captions, 95 % "
        "intervals over images",
        columns=["network", RETRIEVAL, "loss (nats)"],
        rows=rows,
        note=f"An image is right where the nearest caption belongs to an image of the same {match}; guessing draws "
        "one of the validation captions. The loss is the mean over batches as large as those of training; it is not 0 "
        "for a perfect network where captions repeat.",
        best=0 if after.value > max(before.value, outcome["chance"]) else None,
    )
