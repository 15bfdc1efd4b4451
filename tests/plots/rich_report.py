"""A report as large as an evaluation makes it: 2,000 cells of nine types in three batches, 13 layers, all figures."""

import hashlib
import math
from pathlib import Path

import numpy as np

from xfm.core.report import Estimate, Figure, Report, Table
from xfm.plots.classifier import draw_confusion
from xfm.plots.dots import Bars, draw_bars
from xfm.plots.layer_curve import Baseline, Mark, Series, draw_layer_curve
from xfm.plots.scatter import Panel, draw_panels

TYPES = (
    "CD4-positive, alpha-beta T cell", "CD8-positive, alpha-beta cytotoxic T cell", "naive B cell",
    "classical monocyte", "natural killer cell", "non-classical monocyte", "conventional dendritic cell",
    "plasmacytoid dendritic cell", "megakaryocyte",
)  # fmt: skip
SHARES = (0.3, 0.2, 0.15, 0.12, 0.08, 0.06, 0.05, 0.02, 0.02)
BATCHES = ("10x 3' v2", "10x 3' v3", "Smart-seq2")
CELLS, LAYERS = 2000, 13
HEADLINE = (
    "Yes: layer 7 (cls, chosen on validation cells) tells cell_type better than the last layer: macro F1 0.912 "
    "[0.894, 0.929] against 0.847 [0.822, 0.870]; it is no better, within noise, than PCA (0.905 [0.887, 0.921])."
)


def estimate(value: float, half: float = 0.02) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)


def digest(word: str) -> str:
    return hashlib.sha256(word.encode()).hexdigest()


def rich_report(folder: Path) -> Report:
    """Writes the figures below `folder`."""
    rng = np.random.default_rng(0)
    layers = list(range(LAYERS))
    cls = [0.70 + 0.21 * math.sin(layer / 12 * 2.5) for layer in layers]
    mean = [0.73 + 0.16 * math.sin(layer / 12 * 2.6) for layer in layers]
    kinds = rng.choice(len(TYPES), CELLS, p=SHARES)
    batches = rng.integers(len(BATCHES), size=CELLS)
    return Report(
        title="What each layer knows of cell_type, disease",
        job="evaluate",
        headline=HEADLINE,
        numbers={
            "cells": CELLS,
            "training cells": 1204,
            "test cells": 398,
            "representations judged": 46,
            "macro F1, chosen layer": estimate(0.912),
            "macro F1, last layer": estimate(0.847),
        },
        tables=[*_summaries(cls, mean), *_long_tables(cls, mean), _classes(rng)],
        figures=[
            _curve(folder, layers, cls, mean),
            _panels(folder, rng, kinds, batches),
            _dots(folder, rng),
            _confusion(folder, rng, kinds),
            _second_curve(folder, layers, cls),
        ],
        warnings=[
            "The 3 batches are too few for intervals over batches: those of integration scores are over cells.",
            "2 classes have fewer than 10 test cells (megakaryocyte, plasmacytoid dendritic cell).",
        ],
        provenance={
            "choice": {"cell_type": {"representation": "cls_l07", "chosen_on": "validation", "by": "probe macro F1"}},
            "weights": {"kind": "scgpt", "sha256": digest("weights"), "uri": "hf://tdc/scGPT@" + digest("c")[:40]},
            "data": {"uri": "s3://a-bucket/atlas/pbmc", "files": {f"d{n:02d}.h5ad": digest(str(n)) for n in range(30)}},
            "versions": {"python": "3.11.7", "torch": "2.13.0+cpu", "umap-learn": "0.5.12", "xfm": "0.1.0"},
        },
        refused={"NEGATIVE_COUNT": 1234, "NOT_FINITE": 3},
    )


def _curve(folder: Path, layers: list[int], cls: list[float], mean: list[float]) -> Figure:
    return draw_layer_curve(
        folder,
        "f1",
        [_series("cls", layers, cls), _series("mean", layers, mean)],
        [
            Baseline("majority", 0.043, 0.04, 0.046),
            Baseline("HVG", 0.89, 0.87, 0.91),
            Baseline("PCA", 0.905, 0.887, 0.921),
            _series("random weights, cls", layers, [0.52 + 0.003 * layer for layer in layers]),
        ],
        metric="macro F1 of the linear probe",
        title="How well each layer tells cell_type",
        caption="Macro F1 for cell_type at every layer, with 95 % intervals over groups of cells; grey: baselines.",
        higher_is_better=True,
        marks=[Mark("cls", 7, "chosen on validation: layer 7"), Mark("cls", 12, "last layer")],
    )


def _second_curve(folder: Path, layers: list[int], cls: list[float]) -> Figure:
    return draw_layer_curve(
        folder,
        "nmi",
        [_series("cls", layers, [value - 0.2 for value in cls])],
        [Baseline("PCA", 0.68, 0.66, 0.70)],
        metric="NMI of Leiden clusters",
        title="How well clusters agree with cell_type",
        caption="NMI at the best Leiden resolution.",
        higher_is_better=True,
    )


def _series(name: str, layers: list[int], values: list[float]) -> Series:
    return Series(name, layers, values, [value - 0.02 for value in values], [value + 0.02 for value in values])


def _panels(folder: Path, rng: np.random.Generator, kinds: np.ndarray, batches: np.ndarray) -> Figure:
    middles = 9 * np.array([(math.cos(0.7 * k) * (1 + k % 3), math.sin(0.7 * k) * (1 + k % 3)) for k in range(9)])
    best = middles[kinds] + 2.2 * rng.normal(size=(CELLS, 2))
    last = 0.4 * middles[kinds] + np.array([(-22, 0), (22, 4), (0, 30)])[batches] + 3.5 * rng.normal(size=(CELLS, 2))
    words = [("cell_type", np.array(TYPES)[kinds]), ("assay", np.array(BATCHES)[batches])]
    titles = {"cls, layer 7, chosen on validation": best, "cls, layer 12, the last one": last}
    panels = [Panel(title, xy, labels, by) for by, labels in words for title, xy in titles.items()]
    return draw_panels(folder, "umap", panels, "UMAP of the chosen and the last layer, by cell_type and by assay.")


def _confusion(folder: Path, rng: np.random.Generator, kinds: np.ndarray) -> Figure:
    alike = np.array([1, 0, 2, 5, 1, 3, 7, 6, 8])
    guessed = np.where(rng.random(CELLS) < 0.09, alike[kinds], kinds)
    counts = np.zeros((len(TYPES), len(TYPES)), dtype=np.int64)
    np.add.at(counts, (kinds, guessed), 1)
    return draw_confusion(
        folder, "confusion", counts, TYPES,
        caption="Where the probe of cls, layer 7, mistakes one cell_type for another; test cells.",
    )  # fmt: skip


def _dots(folder: Path, rng: np.random.Generator) -> Figure:
    bars = []
    for name, level in (("cls, layer 7 (chosen)", 0.93), ("cls, layer 12 (last)", 0.85), ("PCA", 0.9)):
        values = [min(0.99, level + 0.04 * rng.normal() - 0.01 * rank) for rank in range(len(TYPES))]
        half = [0.02 + 0.012 * rank for rank in range(len(TYPES))]
        low = [value - width for value, width in zip(values, half, strict=True)]
        bars.append(Bars(name, values, low, [min(1.0, v + w) for v, w in zip(values, half, strict=True)]))
    support = [round(398 * share) for share in SHARES]
    return draw_bars(
        folder, "classes", TYPES, support, bars, metric="F1 on test cells", title="F1 of each cell_type",
        caption="F1 of each class, 95 % intervals over donors; in brackets: test cells.",
    )  # fmt: skip


def _summaries(cls: list[float], mean: list[float]) -> list[Table]:
    rows = [
        ["majority", estimate(0.043, 0.003), None, estimate(0.0, 0.0), None],
        ["HVG", estimate(0.89), estimate(0.861), estimate(0.66), estimate(0.52)],
        ["PCA", estimate(0.905), estimate(0.87), estimate(0.68), estimate(0.55)],
        ["random weights, cls, layer 9", estimate(0.547), estimate(0.50), estimate(0.31), estimate(0.2)],
        ["cls, layer 7 (chosen on validation)", estimate(cls[7]), estimate(0.88), estimate(0.7), estimate(0.58)],
        ["cls, layer 12 (last)", estimate(cls[12]), estimate(0.81), estimate(0.61), estimate(0.47)],
        ["mean of all layers, cls", estimate(0.90), estimate(0.87), estimate(0.67), estimate(0.52)],
    ]
    duels = [
        ["last layer", estimate(0.065), 0.0005, 0.006, "better"],
        ["PCA", estimate(0.007), 0.31, 0.93, "no better, within noise"],
        ["random weights", estimate(0.365), 0.0005, 0.006, "better"],
    ]
    return [
        Table(
            name="cell_type_summary",
            caption="cell_type: the chosen layer, the last layer and the baselines; 95 % intervals over donors",
            columns=["", "probe F1", "kNN F1", "NMI", "ARI"],
            rows=rows,
            note="F1: macro average over classes. NMI and ARI at the Leiden resolution with the best NMI.",
            best=4,
        ),
        Table(
            name="duels_summary",
            caption="The chosen layer against its rivals: paired differences of macro F1 on the same resamples",
            columns=["rival", "difference", "p", "p, corrected for 13 layers", "verdict"],
            rows=duels,
        ),
    ]


def _long_tables(cls: list[float], mean: list[float]) -> list[Table]:
    names = [(f"{pool}, layer {layer}", values[layer]) for pool, values in (("cls", cls), ("mean", mean))
             for layer in range(LAYERS)]  # fmt: skip
    names += [(f"random weights, {pool}, layer {layer}", 0.5) for pool in ("cls", "mean") for layer in range(LAYERS)]
    names += [("HVG", 0.89), ("PCA", 0.905), ("majority", 0.043), ("last 4, mean, cls", 0.89)]
    found = []
    for name, caption, columns in (
        (
            "probe",
            "every score of the linear probe on test cells",
            ["F1", "accuracy", "balanced accuracy", "precision"],
        ),
        ("knn", "every score of the nearest neighbours on test cells", ["F1", "accuracy", "balanced accuracy"]),
        (
            "clustering",
            "how well clusters agree with it, all cells",
            ["NMI", "ARI", "silhouette", "ASW", "connectivity"],
        ),
    ):
        rows = [[who, *(estimate(value - 0.01 * place) for place in range(len(columns)))] for who, value in names]
        best = max(range(len(names)), key=lambda number: names[number][1])
        head = ["representation", *columns]
        found.append(Table(name=name, caption=f"cell_type: {caption}", columns=head, rows=rows, best=best))
    return found


def _classes(rng: np.random.Generator) -> Table:
    rows = [
        [name, round(1204 * share), round(398 * share), *(float(x) for x in rng.uniform(0.7, 1, size=5))]
        for name, share in zip(TYPES, SHARES, strict=True)
    ]
    return Table(
        name="cell_type_classes",
        caption="cell_type: each class, read by the probe from cls, layer 7",
        columns=["class", "training cells", "test cells", "precision", "recall", "F1", "F1, last layer", "F1, PCA"],
        rows=rows,
        note="A class without test cells has no score and enters no average.",
    )
