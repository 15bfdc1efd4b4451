"""The report of a trained CLIP: does an image find its caption, beside guessing and beside the network before."""

from collections.abc import Mapping, Sequence
from functools import partial
from math import log
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfm.core.report import Estimate, Figure, Report, Table
from xfm.metrics.paired import bootstrap_difference
from xfm.metrics.resampling import GroupDraws, Resampled, bootstrap, estimate, weighted_sums
from xfm.plots.layer_curve import Baseline
from xfm.plots.training_curves import draw_loss_curve
from xfm.training.report import out_of_time, pretraining_numbers, provenance, rate
from xfm.training.settings import Record, Settings, Trained

RETRIEVAL = "R@1, image to caption"


def contrastive_report(
    trained: Trained,
    settings: Settings,
    run: Mapping[str, Any],
    rows: tuple[int, int],
    refused: Mapping[str, int],
    *,
    start: str,
    identity: Mapping[str, Any],
    match: str,
) -> Report:
    """What a contrastive `pretrain` left behind.

    Args:
        rows: images trained on, and held out for validation.
        start: what the network was before, in words.
        identity: of its weights, or what they follow from.
    """
    numbers = pretraining_numbers(trained, settings, rows, "images") | rate(trained, settings, rows[0], "images")
    outcome = trained.outcome
    tables: list[Table] = []
    headline = f"{trained.steps:,} steps over {rows[0]:,} images; none was held out to judge them on."
    if outcome["images"]:
        after, before = _recall(outcome["hits"], settings.seed), _recall(outcome["hits_before"], settings.seed)
        gain = bootstrap_difference(after.draws, before.draws, after.value, before.value)
        numbers |= {RETRIEVAL: estimate(*after) or after.value, "chance of that": outcome["chance"]}
        tables = [_table(outcome, start, match, after, before)]
        headline = (
            f"After {trained.steps:,} steps on {rows[0]:,} images, {after.value:.1%} of {outcome['images']:,} held-out "
            f"images find a caption of their {match}; {start} {before.value:.1%}, guessing {outcome['chance']:.1%} "
            f"(gain {gain.value:+.3f}, 95 % interval {gain.low:+.3f} to {gain.high:+.3f})."
        )
    return Report(
        title="Pretraining of CLIP",
        job="pretrain",
        headline=headline,
        numbers=numbers,
        tables=tables,
        warnings=out_of_time(trained, settings),
        provenance=provenance(run) | {"start": dict(identity)},
        refused=dict(refused),
    )


def drawer(history: Sequence[Record], batch: int) -> partial[list[Figure]]:
    """`draw`, waiting for its folder."""
    return partial(draw, history, batch)


def draw(history: Sequence[Record], batch: int, folder: Path) -> list[Figure]:
    """The loss curve beside what guessing pays."""
    figure = draw_loss_curve(
        folder, "loss", history, ["loss"], [Baseline("guessing", log(batch))], metric="contrastive loss (nats)",
        title="Pretraining",
        caption="Contrastive loss while training: thin line training pairs, thick line with markers validation pairs "
        f"in batches of the same size; dashed: a network that cannot tell {batch} pairs apart, log {batch}.",
    )  # fmt: skip
    return [figure]


def _recall(hits: NDArray[np.bool_], seed: int) -> Resampled:
    """The share of hits and its draws over images."""
    draws = GroupDraws(np.arange(len(hits)), seed)
    column = hits.astype(np.float64)[:, None]
    return bootstrap(draws, lambda weights: {"recall": weighted_sums(weights, column)[:, 0] / len(hits)})["recall"]


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
