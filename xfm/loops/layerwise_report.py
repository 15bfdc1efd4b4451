"""From per-cell sums to the tables, the curve and the sentence of a layerwise job."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xfm.core.random import rng_for
from xfm.core.report import Estimate, Report, Table
from xfm.loops.layerwise import BASELINES, READOUTS, F64, score_columns
from xfm.metrics.regression import bootstrap

LABELS = {
    "cell_mean": "mean of the cell",
    "gene_mean": "mean of the gene",
    "gene_depth": "gene x depth",
    "decoder": "decoder",
    "calibrated": "decoder, calibrated",
    "ridge": "ridge readout",
}


@dataclass(frozen=True, slots=True)
class Score:
    """One predictor (a baseline, or a readout of one layer) over all scored cells; errors are in bins."""

    mse: Estimate
    mae: Estimate
    pearson: Estimate | None
    spearman: Estimate | None
    skill: dict[str, Estimate]
    cell_mse: tuple[float, float]
    cell_mae: tuple[float, float]
    undefined: int


@dataclass(slots=True)
class Scores:
    """All predictors of all modes, by column name of the parts."""

    cells: int
    n_layers: int
    modes: Sequence[str]
    by_name: dict[str, Score] = field(default_factory=dict)

    def layer(self, mode: str, readout: str, layer: int) -> Score:
        """A readout of one layer."""
        return self.by_name[f"{mode}_{readout}_l{layer:02d}"]

    def strongest(self, mode: str) -> str:
        """The baseline with the lowest error."""
        return min(BASELINES, key=lambda name: self.by_name[f"{mode}_{name}"].mse.value)


def score(columns: Mapping[str, F64], modes: Sequence[str], n_layers: int, seed: int, resamples: int) -> Scores:
    """Scores every predictor, all on the same bootstrap resamples of cells.

    Args:
        columns: {name: (C, 5)} cell sums, see `metrics.regression.SUMS`.
        modes, n_layers: of the job.
        seed, resamples: of the bootstrap.
    """
    scores = Scores(len(next(iter(columns.values()))), n_layers, modes)
    for name in score_columns(modes, n_layers):
        mode = name.partition("_")[0]
        bases = [columns[f"{mode}_{baseline}"] for baseline in BASELINES]
        scores.by_name[name] = _score(columns[name], bases, seed, resamples)
    return scores


def _score(sums: F64, bases: Sequence[F64], seed: int, resamples: int) -> Score:
    n, squared, absolute, *correlations = sums.T
    defined = [np.isfinite(r) for r in correlations]
    top = [squared, absolute, *(np.where(ok, r, 0.0) for ok, r in zip(defined, correlations, strict=True))]
    bottom = [n, n, *(ok.astype(float) for ok in defined)]
    for base in bases:
        top.append(squared)
        bottom.append(base[:, 1])
    tops, bottoms = np.stack(top, axis=1), np.stack(bottom, axis=1)
    # A correlation that no cell defines has no value and no interval.
    bottoms[:, [not ok.any() for ok in (np.ones(1), np.ones(1), *defined)] + [False] * len(bases)] = np.nan
    with np.errstate(invalid="ignore"):
        values = tops.sum(axis=0) / bottoms.sum(axis=0)
        low, high = bootstrap(len(sums), [tops, bottoms], rng_for(seed, "bootstrap"), resamples)
    estimates = [Estimate(value=v, low=a, high=b) for v, a, b in zip(values, low, high, strict=True)]
    skills = [Estimate(value=1 - e.value, low=1 - e.high, high=1 - e.low) for e in estimates[4:]]
    cell_mse, cell_mae = squared / n, absolute / n
    return Score(
        mse=estimates[0],
        mae=estimates[1],
        pearson=estimates[2] if defined[0].any() else None,
        spearman=estimates[3] if defined[1].any() else None,
        skill=dict(zip(BASELINES, skills, strict=True)),
        cell_mse=(float(cell_mse.mean()), float(cell_mse.std())),
        cell_mae=(float(cell_mae.mean()), float(cell_mae.std())),
        undefined=int((~defined[0]).sum()),
    )


def layerwise_report(
    scores: Scores, best: Mapping[tuple[str, str], int], run: Mapping[str, Any], refused: Mapping[str, int], notes: Sequence[str]
) -> Report:
    """The report.

    Args:
        scores: of the scored cells.
        best: (mode, readout) to the layer that was best on the fitting cells: chosen before the scored ones were read.
        run: content of run.json.
        refused: quarantine lines by code.
        notes: what a reader must know, e.g. that the model is a small one.
    """
    mode = "masked" if "masked" in scores.modes else scores.modes[0]
    tables = [table for m in sorted(scores.modes, key=lambda m: m != mode) for table in _tables(scores, m, best)]
    if "visible" in scores.modes:
        tables.append(_reference_table(scores))
    recipe = run["recipe"]
    return Report(
        title="What each layer knows of expression",
        job="layerwise",
        headline=_headline(scores, mode, best),
        numbers={"scored cells": scores.cells, "layers": scores.n_layers + 1},
        tables=tables,
        warnings=[*notes, *_cautions(scores)],
        provenance={"weights": recipe["weights"], "data": recipe["data"], "versions": run["versions"]},
        refused=dict(refused),
    )


def _headline(scores: Scores, mode: str, best: Mapping[tuple[str, str], int]) -> str:
    """Words only where the interval supports them."""
    base = scores.strongest(mode)
    at = best[mode, "ridge"]
    chosen = scores.layer(mode, "ridge", at).skill[base]
    last = scores.layer(mode, "ridge", scores.n_layers).skill[base]
    what = "hidden genes" if mode == "masked" else "visible genes"
    verdict = "beats" if chosen.low > 0 else ("does not beat" if chosen.high < 0 else "is no better, within noise, than")
    return (
        f"Reading {what} linearly from layer {at} (chosen on other cells) {verdict} the strongest baseline, "
        f"{LABELS[base]}: skill {chosen.value:+.3f} [{chosen.low:+.3f}, {chosen.high:+.3f}]; "
        f"the last layer has {last.value:+.3f} [{last.low:+.3f}, {last.high:+.3f}]."
    )


def _tables(scores: Scores, mode: str, best: Mapping[tuple[str, str], int]) -> Iterator[Table]:
    base = scores.strongest(mode)
    rows: list[list[Any]] = []
    for name in BASELINES:
        rows.append([LABELS[name], None, *_cells(scores.by_name[f"{mode}_{name}"], base)])
    for readout in READOUTS:
        for layer in range(scores.n_layers + 1):
            rows.append([LABELS[readout], layer, *_cells(scores.layer(mode, readout, layer), base)])
    what = "the scored genes are hidden from the input" if mode == "masked" else "the input holds the answer"
    chosen = ", ".join(f"{LABELS[r]}: layer {best[mode, r]}" for r in READOUTS)
    yield Table(
        name=mode,
        caption=f"{mode.capitalize()}: {what}. Errors in bins; {scores.cells:,} cells; 95 % bootstrap intervals over cells",
        columns=["predictor", "layer", "MSE", f"skill over {LABELS[base]}", "MAE", "Pearson", "Spearman"],
        rows=rows,
        note=f"Best layer on the fitting cells - {chosen}. Skill = 1 - MSE / MSE of the strongest baseline.",
    )
    yield Table(
        name=f"{mode}_skill",
        caption=f"{mode.capitalize()}: skill of the ridge readout against each baseline",
        columns=["layer", *(LABELS[name] for name in BASELINES)],
        rows=[
            [layer, *(scores.layer(mode, "ridge", layer).skill[name] for name in BASELINES)]
            for layer in range(scores.n_layers + 1)
        ],
    )


def _cells(item: Score, base: str) -> list[Any]:
    return [item.mse, item.skill[base], item.mae, item.pearson, item.spearman]


def _reference_table(scores: Scores) -> Table:
    rows: list[list[Any]] = []
    for layer in range(scores.n_layers + 1):
        item = scores.layer("visible", "decoder", layer)
        rows.append([f"layer {layer}", *item.cell_mse, *item.cell_mae])
    own = scores.by_name["visible_cell_mean"]
    rows.append(["baseline: mean of the cell", *own.cell_mse, *own.cell_mae])
    return Table(
        name="reference_columns",
        caption="The columns of the layer-wise study this job corrects: errors per cell, then mean and sd over cells",
        columns=["predictor", "MSE mean", "MSE sd", "MAE mean", "MAE sd"],
        rows=rows,
        note="There, each gene's prediction was compared with the next gene's value, in another unit, and layer 0 was "
        "the output of the first block (our layer 1). Here positions and units (bins) agree.",
    )


def _cautions(scores: Scores) -> Iterator[str]:
    undefined = {name: item.undefined for name, item in scores.by_name.items() if item.undefined}
    baselines = {f"{mode}_cell_mean" for mode in scores.modes}
    others = {name: count for name, count in undefined.items() if name not in baselines}
    if others:
        worst = max(others, key=lambda name: others[name])
        yield (
            f"Correlations are undefined where predictions or truths of a cell are constant; such cells are left out "
            f"of that correlation (at most {others[worst]:,} of {scores.cells:,}, for {worst})."
        )
    yield "The decoder was trained on the last layer only; on other layers it is a logit lens. The ridge readout is the fair competitor."
