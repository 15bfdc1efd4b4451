"""The same fine-tuning from several seeds: mean and standard deviation of every score.

Seeds change the head, the order of rows and dropout. Rows, split and resamples stay, so that the spread is that of
training alone; the interval of a single seed is that of the rows.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from xfm.core.report import Estimate, Report, Table
from xfm.judging.classifier_report import METRICS, score

FEW = 3  # seeds, below which a standard deviation says little


def seed_values(scores: Mapping[int, pa.Table], representation: str, metric: str, split: str) -> list[float]:
    """The score of each seed, in their order."""
    found = [score(table, representation, metric, split) for table in scores.values()]
    return [each.value if isinstance(each, Estimate) else each for each in found]


def mean_and_sd(values: list[float]) -> tuple[float, float | None]:
    """Mean, and standard deviation with n - 1; None for a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def spread_table(scores: Mapping[int, pa.Table], representation: str) -> Table:
    """Each score on validation and on test rows, over the seeds."""
    rows: list[list[Any]] = []
    for metric, words in METRICS.items():
        for split in ("validation", "test"):
            values = seed_values(scores, representation, metric, split)
            rows.append([words, split, *mean_and_sd(values), min(values), max(values)])
    return Table(
        name="seeds_summary",
        caption=f"Every score over {len(scores)} seeds",
        columns=["score", "read on", "mean", "sd", "lowest", "highest"],
        rows=rows,
        note="sd is the standard deviation over seeds (n - 1): the luck of training. The luck of the rows is in the "
        "intervals of each seed's own report.",
    )


def seed_table(scores: Mapping[int, pa.Table], representation: str) -> Table:
    """The scores of each seed on test rows, with their intervals over rows."""
    return Table(
        name="each_seed",
        caption="Each seed on test rows, 95 % intervals over rows",
        columns=["seed", *METRICS.values()],
        rows=[
            [seed, *(score(table, representation, metric, "test") for metric in METRICS)]
            for seed, table in scores.items()
        ],
    )


def seeds_report(
    scores: Mapping[int, pa.Table],
    representation: str,
    label: str,
    warnings: list[str],
    run: Mapping[str, Any],
    refused: Mapping[str, int],
) -> Report:
    """What a job with several seeds leaves behind.

    Args:
        scores: rows of `evaluation.judge.SCHEMA` by seed.
    """
    found = {
        (metric, split): mean_and_sd(seed_values(scores, representation, metric, split))
        for metric in METRICS
        for split in ("validation", "test")
    }
    numbers: dict[str, Any] = {"seeds": len(scores)}
    for (metric, split), (mean, sd) in found.items():
        numbers |= {f"{split} {METRICS[metric]}, mean": mean}
        numbers |= {} if sd is None else {f"{split} {METRICS[metric]}, sd": sd}
    mean, sd = found["f1", "test"]
    few = [f"{len(scores)} seeds: their standard deviation is a rough one."] if len(scores) < FEW else []
    return Report(
        title=f"Fine-tuning from {len(scores)} seeds: {label}",
        job="finetune",
        headline=f"Over {len(scores)} seeds, {label} is told with a macro F1 of {mean:.3f}"
        + ("" if sd is None else f" ± {sd:.3f} (standard deviation)")
        + " on test rows, which each seed read once.",
        numbers=numbers,
        tables=[spread_table(scores, representation), seed_table(scores, representation)],
        warnings=[*warnings, *few],
        provenance={"start": run["recipe"]["weights"], "data": run["recipe"]["data"], "versions": run["versions"]},
        refused=dict(refused),
    )
