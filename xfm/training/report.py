"""What the report of every training says alike: how far and how fast it went, how it ended, and what it ran on."""

from collections.abc import Mapping
from typing import Any

from xfm.training.settings import Settings, Trained


def pretraining_numbers(trained: Trained, settings: Settings, rows: tuple[int, int], noun: str) -> dict[str, Any]:
    """Rows, steps, passes and time.

    Args:
        rows: trained on, and held out for validation.
    """
    return {
        f"training {noun}": rows[0],
        f"validation {noun}": rows[1],
        "steps": trained.steps,
        "epochs": round(_seen(trained, settings, rows[0]) / rows[0], 2),
        "training seconds": round(trained.seconds, 1),
    }


def rate(trained: Trained, settings: Settings, rows: int, noun: str) -> dict[str, float]:
    """How many of the rows trained on were seen in a second, over all passes."""
    return {f"{noun} per second": round(_seen(trained, settings, rows) / max(trained.seconds, 1e-9), 1)}


def provenance(run: Mapping[str, Any]) -> dict[str, Any]:
    """The weights it started from, the data and the versions of run.json."""
    return {"start": run["recipe"]["weights"], "data": run["recipe"]["data"], "versions": run["versions"]}


def out_of_time(trained: Trained, settings: Settings) -> list[str]:
    """A warning where the time budget ended training, else nothing."""
    if not trained.is_out_of_time:
        return []
    return [
        f"The time budget of {settings.max_seconds:g} s ended training after {trained.steps:,} of "
        f"{settings.steps:,} steps: another machine would reach another step, and other weights."
    ]


def best_was_last(trained: Trained, settings: Settings) -> list[str]:
    """A warning where the weights that are kept are those of the last step that was allowed, else nothing."""
    if settings.watch and trained.best_step == trained.steps == settings.steps:
        return ["The last validation was the best one: more --epochs may do better."]
    return []


def _seen(trained: Trained, settings: Settings, rows: int) -> int:
    return trained.steps * min(settings.batch_size, rows)
