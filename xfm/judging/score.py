"""One number of a representation, and the table of them that every judging job stores."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.report import Estimate
from xfm.judging.representations import Representation
from xfm.metrics.resampling import F64, estimate, why_no_interval

SCHEMA = pa.schema(
    [
        ("representation", pa.string()),
        ("kind", pa.string()),
        ("pool", pa.string()),
        ("layer", pa.int32()),
        ("task", pa.string()),
        ("label", pa.string()),
        ("metric", pa.string()),
        ("split", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("cells", pa.int64()),
        ("groups", pa.int64()),
        ("note", pa.string()),
        ("draws", pa.list_(pa.float32())),
        (
            "predicted",
            pa.list_(pa.int32()),
        ),  # of the test cells that hold a label, in their order; f1 of classifiers only
    ]
)


@dataclass(frozen=True, slots=True)
class Score:
    """One number of a representation."""

    task: str  # task, label, metric, split: what it says of what, on which cells
    label: str
    metric: str
    split: str
    value: float | None  # None where it is not defined, as `note` explains
    draws: NDArray[np.float64] | None  # (B,) resamples, or None where the metric has none
    cells: int  # cells, groups: how many it was computed on
    groups: int
    note: str = ""
    predicted: NDArray[np.int32] | None = None  # the classes behind it


def table_of(representation: Representation, scores: Iterator[Score]) -> pa.Table:
    """Scores as rows of SCHEMA."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for score in scores:
        value = np.nan if score.value is None else score.value
        ends = None if score.draws is None else estimate(value, score.draws, score.groups)
        row: dict[str, Any] = {
            "representation": representation.name,
            "kind": representation.kind,
            "pool": representation.pool,
            "layer": representation.layer,
            "task": score.task,
            "label": score.label,
            "metric": score.metric,
            "split": score.split,
            "value": score.value,
            "low": ends.low if ends else None,
            "high": ends.high if ends else None,
            "cells": score.cells,
            "groups": score.groups,
            "note": score.note,
            "draws": [] if score.draws is None else score.draws.astype(np.float32),
            "predicted": score.predicted,
        }
        for name, value in row.items():
            columns[name].append(value)
    return pa.table(columns, schema=SCHEMA)


def finite(value: float) -> float | None:
    """The value, or None where it is not defined."""
    return float(value) if np.isfinite(value) else None


def stored_estimate(
    value: float | None, low: float | None, high: float | None, draws: F64 | Sequence[float], groups: int | None
) -> Estimate | float | None:
    """A score out of the table with its interval, or why it has none; the number alone where its metric has none."""
    if value is None:
        return None
    if low is not None and high is not None:
        return Estimate(value=value, low=low, high=high)
    if not len(draws):
        return float(value)
    return Estimate(value=value, low=None, high=None, why=why_no_interval(np.asarray(draws, np.float64), groups))
