"""Hand-made OUTPUTs of `evaluate`: run.json, report.json, manifest and scores.parquet, with a test's own numbers."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        ("representation", pa.string()), ("kind", pa.string()), ("pool", pa.string()), ("layer", pa.int32()),
        ("task", pa.string()), ("label", pa.string()), ("metric", pa.string()), ("split", pa.string()),
        ("value", pa.float64()), ("low", pa.float64()), ("high", pa.float64()), ("cells", pa.int64()),
        ("groups", pa.int64()), ("note", pa.string()), ("draws", pa.list_(pa.float32())),
    ]
)  # fmt: skip


def digest(text: str) -> str:
    """64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(recipe: Mapping[str, Any]) -> str:
    """As xfm computes it: SHA-256 over canonical JSON."""
    return digest(json.dumps(recipe, sort_keys=True, separators=(",", ":")))


def score(
    representation: str,
    value: float | None,
    *,
    validation: float | None = None,
    draws: Sequence[float] = (),
    ends: tuple[float, float] | None = None,
    task: str = "probe",
    metric: str = "f1",
    label: str = "cell_type",
    split: str = "test",
    cells: int = 40,
    groups: int = 8,
) -> list[dict[str, Any]]:
    """Rows of one representation: on test cells (or `split`), and on validation cells where a value is given.

    The name says what it is: cls_l03 is a layer, random_cls_l03 a baseline, hvg a baseline, cls_mean_layers a
    combination. Ends of the interval are 0.02 to either side where there are draws and nothing else is said.
    """
    pool, mark, number = representation.removeprefix("random_").rpartition("_l")
    is_layer = bool(mark) and number.isdigit()
    is_trained = not representation.startswith("random_") and representation not in ("hvg", "pca", "majority")
    kind = ("layer" if is_layer else "combination") if is_trained else "baseline"
    row = {
        "representation": representation, "kind": kind, "pool": pool if is_layer else None,
        "layer": int(number) if is_layer else None, "task": task, "label": label, "metric": metric, "note": "",
        "cells": cells, "groups": groups,
    }  # fmt: skip
    low, high = ends or ((value - 0.02, value + 0.02) if len(draws) and value is not None else (None, None))
    rows = [row | {"split": split, "value": value, "low": low, "high": high, "draws": list(draws)}]
    if validation is not None:
        rows.append(row | {"split": "validation", "value": validation, "low": None, "high": None, "draws": []})
    return rows


def spread(centre: float, resamples: int = 200, width: float = 0.02, seed: int = 0) -> np.ndarray:
    """Draws around a value; the same seed gives the same noise, so that two such scores differ by a constant."""
    return centre + width * np.random.default_rng(seed).standard_normal(resamples)


def write_evaluate(
    folder: Path,
    scores: Sequence[dict[str, Any]],
    *,
    seed: int = 0,
    cells: str = "cells",
    weights: str = "weights",
    choice: str | None = None,
    label: str = "cell_type",
    embedded: str | None = None,
    finished: bool = True,
    numbers: Mapping[str, Any] | None = None,
    seconds: Mapping[str, float] | None = None,
    settings: Mapping[str, Any] | None = None,
    job: str = "evaluate",
    noun: str = "cells",
) -> Path:
    """An OUTPUT as `evaluate` leaves it, or another job that writes scores.parquet.

    Args:
        folder: where.
        scores: rows of `score`.
        seed: of the job.
        cells: two runs with the same word judged the same cells and labels; the seed draws the split.
        weights: two runs with the same word judged the same model.
        choice: representation chosen on validation; None leaves the choice to the reader.
        label: that it was chosen for.
        embedded: identity of the embeddings; by default that of the weights.
        finished: whether report.json is there.
        numbers: of the report.
        seconds: of representations, as the manifest has them.
        settings: further fields of the job's config.
        job: that wrote it.
        noun: what it calls rows.
    """
    folder.mkdir(parents=True)
    config = {"seed": seed, "labels": [label], "group": "donor", "validation": 0.2, "test": 0.2, **(settings or {})}
    data = {"embeddings": digest(embedded or weights)}
    recipe = {
        "job": job, "config": config, "data": data, "cells": digest(cells), "split": digest(f"{cells} {seed}"),
    }  # fmt: skip
    origin = {"weights": {"model.safetensors": digest(weights)}, "model": "scgpt", "job": "embed", "data_name": "pbmc"}
    run = {
        "job": job, "recipe": recipe, "settings": config, "origin": origin, "versions": {"xfm": "0.1.0"},
        "fingerprint": fingerprint(recipe), "attempts": 1, "noun": noun,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run))
    lines = [
        {"key": key, "rows": 1, "sha256": digest(key), "bytes": 1, "seconds": spent, "attempts": 1}
        for key, spent in (seconds or {}).items()
    ]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    pq.write_table(pa.Table.from_pylist(list(scores), schema=SCHEMA), folder / "scores.parquet")
    provenance: dict[str, Any] = {"data": data}
    if choice is not None:
        provenance["choice"] = {label: {"representation": choice, "chosen_on": "validation"}}
    if finished:
        write_report(folder, job, numbers or {"cells": 100}, provenance)
    return folder


def write_reported(folder: Path, job: str, numbers: Mapping[str, Any], *, seed: int = 0, data: str = "data") -> Path:
    """An OUTPUT of a job without scores.parquet, such as layerwise or pretrain."""
    folder.mkdir(parents=True)
    config = {"seed": seed, "backbone": {"kind": "scgpt"}}
    recipe = {"job": job, "config": config, "data": {"files": {"cells.h5ad": digest(data)}}, "weights": {}}
    run = {"job": job, "recipe": recipe, "settings": config, "fingerprint": fingerprint(recipe), "attempts": 1}
    (folder / "run.json").write_text(json.dumps(run))
    write_report(folder, job, numbers, {})
    return folder


def write_report(folder: Path, job: str, numbers: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    """report.json, which a job writes last."""
    report = {
        "format": 1, "title": "t", "job": job, "headline": "h", "numbers": dict(numbers), "tables": [], "figures": [],
        "warnings": [], "provenance": dict(provenance), "refused": {},
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(report))
