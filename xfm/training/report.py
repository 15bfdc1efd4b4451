"""What the report of every training says alike: how far and how fast it went, how it ended, and what it ran on."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfm.core.parts import VALIDATION
from xfm.core.report import Estimate
from xfm.metrics.paired import bootstrap_difference
from xfm.metrics.resampling import GroupDraws, Resampled, bootstrap, group_sums, weighted_sums
from xfm.training.task import TrainingRun


def pretraining_numbers(run: TrainingRun, noun: str) -> dict[str, Any]:
    """Rows, steps, passes and time."""
    return {
        f"training {noun}": run.n_training,
        f"validation {noun}": sum(run.parts.count(VALIDATION)),
        "steps": run.trained.steps,
        "epochs": round(_seen(run) / run.n_training, 2),
        "training seconds": round(run.trained.seconds, 1),
    }


def rate(run: TrainingRun, noun: str) -> dict[str, float]:
    """How many of the rows trained on were seen in a second, over all passes."""
    return {f"{noun} per second": round(_seen(run) / max(run.trained.seconds, 1e-9), 1)}


def provenance(run: TrainingRun) -> dict[str, Any]:
    """The weights it started from, the data and the versions of run.json."""
    recipe = run.run["recipe"]
    return {"start": recipe["weights"], "data": recipe["data"], "versions": run.run["versions"]}


def ending(run: TrainingRun) -> list[str]:
    """A warning where the time budget ended training, or where the weights that are kept are those of the last step
    that was allowed; else nothing."""
    trained, settings = run.trained, run.settings
    if settings.watch and trained.best_step == trained.steps == settings.steps:
        return [*out_of_time(run), "The last validation was the best one: more --epochs may do better."]
    return out_of_time(run)


def out_of_time(run: TrainingRun) -> list[str]:
    """A warning where the time budget ended training, else nothing."""
    if not run.trained.is_out_of_time:
        return []
    return [
        f"The time budget of {run.settings.max_seconds:g} s ended training after {run.trained.steps:,} of "
        f"{run.settings.steps:,} steps: another machine would reach another step, and other weights."
    ]


def said(value: Estimate | float | None, spec: str = ".3f") -> str:
    """A score in a sentence, with its interval where it has one."""
    if isinstance(value, Estimate):
        return value.words(spec)
    return "undefined" if value is None else f"{value:{spec}}"


def recall(hits: NDArray[np.bool_], groups: NDArray[np.int64], seed: int) -> Resampled:
    """The share of (N,) hits and its draws, over rows or over whole groups of them: `groups` (N,) say who is drawn
    together. The same seed draws the same rows for two networks."""
    draws = GroupDraws(groups, seed)
    sums = group_sums(draws.codes, draws.n_groups, np.stack([hits, np.ones(len(hits))], axis=1).astype(np.float64))

    def share(weights: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        drawn = weighted_sums(weights, sums)
        return {"recall": drawn[:, 0] / drawn[:, 1]}

    return bootstrap(draws, share)["recall"]


def gained(after: Resampled, before: Resampled) -> str:
    """How much more is found, in words."""
    gain = bootstrap_difference(after.draws, before.draws, after.value, before.value)
    ends = "no interval" if gain.low is None else f"95 % interval {gain.low:+.3f} to {gain.high:+.3f}"
    return f"gain {gain.value:+.3f}, {ends}"


def _seen(run: TrainingRun) -> int:
    return run.trained.steps * min(run.settings.batch_size, run.n_training)
