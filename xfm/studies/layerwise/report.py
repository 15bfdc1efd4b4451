"""From per-cell sums to the tables, the curve and the sentence of a layerwise job."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xfm.core.random import rng_for
from xfm.core.report import Estimate, Report, Table
from xfm.metrics.resampling import group_sums, percentile_interval, ratios, resampled_sums
from xfm.studies.layerwise.scoring import BASELINES, F64, READOUTS, score_columns

LABELS = {
    "cell_mean": "mean of the cell",
    "gene_mean": "mean of the gene",
    "gene_depth": "gene x depth",
    "decoder": "decoder",
    "calibrated": "decoder, calibrated",
    "ridge": "ridge readout",
}


@dataclass(frozen=True, slots=True)
class LayerScore:
    """One predictor (a baseline, or a readout of one layer) over all scored cells; errors are in bins."""

    mse: Estimate  # mse, mae: over all predictions
    mae: Estimate
    pearson: Estimate | None  # pearson, spearman: means over the cells that define them; None where no cell does
    spearman: Estimate | None
    skill: dict[str, Estimate]  # 1 - MSE / MSE of each baseline; NaN where the baseline makes no error
    cell_mse: tuple[float, float]  # cell_mse, cell_mae: mean and standard deviation over cells of a cell's own error
    cell_mae: tuple[float, float]
    undefined: int  # cells without a correlation


@dataclass(slots=True)
class Scores:
    """All predictors of all modes, by column name of the parts."""

    cells: int
    n_layers: int
    modes: Sequence[str]
    by_name: dict[str, LayerScore] = field(default_factory=dict)
    resampled: str = "cells"
    """What the intervals are over."""

    def layer(self, mode: str, readout: str, layer: int) -> LayerScore:
        """A readout of one layer."""
        return self.by_name[f"{mode}_{readout}_l{layer:02d}"]

    def strongest(self, mode: str) -> str:
        """The baseline with the lowest error."""
        return min(BASELINES, key=lambda name: self.by_name[f"{mode}_{name}"].mse.value)


def score(
    columns: Mapping[str, F64],
    modes: Sequence[str],
    n_layers: int,
    seed: int,
    resamples: int,
    groups: Sequence[str] | None = None,
) -> Scores:
    """Scores every predictor, all on the same bootstrap resamples of groups of cells.

    Args:
        columns: {name: (C, 5)} cell sums, see `metrics.regression.SUMS`.
        groups: (C,) donor, slide or the like of each cell; None where cells stand for themselves.
    """
    names = list(score_columns(modes, n_layers))
    per_cell = np.stack([_summands(columns[name]) for name in names], axis=1)
    cells = len(per_cell)
    sums = per_cell.reshape(cells, -1)
    if groups is not None:
        # Cells of one donor resemble each other: donors are drawn, whole.
        codes = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)[1]
        sums = group_sums(codes, int(codes.max()) + 1, sums)
    drawn = resampled_sums(sums, rng_for(seed, "bootstrap"), resamples)
    # Row 0 holds the cells as they are, the others the resamples.
    totals = np.concatenate([per_cell.sum(axis=0)[None], drawn.reshape(resamples, *per_cell.shape[1:])])
    n, squared, absolute, pearson, spearman, has_pearson, has_spearman = np.moveaxis(totals, 2, 0)
    mse, mae = _estimates(ratios(squared, n)), _estimates(ratios(absolute, n))
    pearsons, spearmans = _estimates(ratios(pearson, has_pearson)), _estimates(ratios(spearman, has_spearman))
    skills = {}
    for base in BASELINES:
        of_mode = [names.index(f"{name.partition('_')[0]}_{base}") for name in names]
        skills[base] = _estimates(1 - ratios(squared, squared[:, of_mode]))
    scores = Scores(cells, n_layers, modes, resampled="cells" if groups is None else f"{len(sums):,} groups of cells")
    for i, name in enumerate(names):
        count, cell_squared, cell_absolute, *_ = per_cell[:, i].T
        cell_mse, cell_mae = cell_squared / count, cell_absolute / count
        scores.by_name[name] = LayerScore(
            mse=mse[i],
            mae=mae[i],
            pearson=_defined(pearsons[i]),
            spearman=_defined(spearmans[i]),
            skill={base: skills[base][i] for base in BASELINES},
            cell_mse=(float(cell_mse.mean()), float(cell_mse.std())),
            cell_mae=(float(cell_mae.mean()), float(cell_mae.std())),
            undefined=cells - int(has_pearson[0, i]),
        )
    return scores


def _summands(sums: F64) -> F64:
    """(C, 5) cell sums to (C, 7): undefined correlations count 0, and the last two say whether they are defined."""
    correlations = sums[:, 3:]
    defined = np.isfinite(correlations)
    return np.hstack([sums[:, :3], np.where(defined, correlations, 0.0), defined])


def _estimates(values: F64) -> list[Estimate]:
    """(1 + resamples, P) values, the first of all cells, to P estimates; NaN where nothing is defined."""
    ends = percentile_interval(values[1:])
    return [Estimate(value=v, low=a, high=b) for v, a, b in zip(values[0], *ends, strict=True)]


def _defined(estimate: Estimate) -> Estimate | None:
    return estimate if np.isfinite(estimate.value) else None


def layerwise_report(
    scores: Scores,
    best: Mapping[tuple[str, str], int],
    run: Mapping[str, Any],
    refused: Mapping[str, int],
    notes: Sequence[str],
) -> Report:
    """The report.

    Args:
        best: (mode, readout) to the layer that was best on the fitting cells: chosen before the scored ones were read.
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
        provenance={
            "weights": recipe["weights"],
            "checkpoint": run.get("checkpoint", {}),
            "data": recipe["data"],
            "versions": run["versions"],
        },
        refused=dict(refused),
    )


def _headline(scores: Scores, mode: str, best: Mapping[tuple[str, str], int]) -> str:
    """Words only where the interval supports them."""
    base = scores.strongest(mode)
    at = best[mode, "ridge"]
    chosen = scores.layer(mode, "ridge", at).skill[base]
    last = scores.layer(mode, "ridge", scores.n_layers).skill[base]
    what = "hidden genes" if mode == "masked" else "visible genes"
    if _defined(chosen) is None:
        return f"The strongest baseline for {what}, {LABELS[base]}, makes no error: there is nothing to beat."
    verdict = "is no better, within noise, than"
    if chosen.low > 0:
        verdict = "beats"
    elif chosen.high < 0:
        verdict = "does not beat"
    return (
        f"Reading {what} linearly from layer {at} (chosen on other cells) {verdict} the strongest baseline, "
        f"{LABELS[base]}: skill {chosen.value:+.3f} [{chosen.low:+.3f}, {chosen.high:+.3f}]; "
        f"the last layer has {last.value:+.3f} [{last.low:+.3f}, {last.high:+.3f}]."
    )


def _tables(scores: Scores, mode: str, best: Mapping[tuple[str, str], int]) -> Iterator[Table]:
    base = scores.strongest(mode)
    what = "the scored genes are hidden from the input" if mode == "masked" else "the input holds the answer"
    chosen = ", ".join(f"{LABELS[r]}: {best[mode, r]}" for r in READOUTS)
    compact: list[list[Any]] = []
    for name in BASELINES:
        own = scores.by_name[f"{mode}_{name}"]
        compact.append([LABELS[name], None, None, own.mse, _defined(own.skill[base]) if name != base else None])
    for layer in range(scores.n_layers + 1):
        decoder, calibrated, ridge = (scores.layer(mode, readout, layer) for readout in READOUTS)
        skill = _defined(ridge.skill[base])
        compact.append([f"layer {layer}", decoder.mse.value, calibrated.mse.value, ridge.mse, skill])
    yield Table(
        name=f"{mode}_summary",
        caption=f"{mode.capitalize()}: {what}. MSE in squared bins over {scores.cells:,} cells, 95 % intervals "
        f"over {scores.resampled}",
        columns=["", "decoder", "calibrated", "ridge readout, or baseline", f"skill over {LABELS[base]}"],
        rows=compact,
        note=f"Skill = 1 - MSE / MSE of the strongest baseline. Best layer on the fitting cells - {chosen}.",
    )
    over = [f"skill over {LABELS[name]}" for name in BASELINES]
    rows: list[list[Any]] = [[LABELS[name], None, *_cells(scores.by_name[f"{mode}_{name}"])] for name in BASELINES]
    for readout in READOUTS:
        for layer in range(scores.n_layers + 1):
            rows.append([LABELS[readout], layer, *_cells(scores.layer(mode, readout, layer))])
    yield Table(
        name=mode,
        caption=f"{mode.capitalize()}: every predictor, with its skill over each baseline",
        columns=["predictor", "layer", "MSE", "MAE", "Pearson", "Spearman", *over],
        rows=rows,
        note="Pearson and Spearman are means over cells of the correlation across a cell's scored genes.",
    )


def _cells(item: LayerScore) -> list[Any]:
    return [item.mse, item.mae, item.pearson, item.spearman, *(_defined(item.skill[name]) for name in BASELINES)]


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
            "Correlations are undefined where predictions or truths of a cell are constant, or constant but for "
            "rounding in single precision; such cells are left out of that correlation "
            f"(at most {others[worst]:,} of {scores.cells:,}, for {worst})."
        )
    yield (
        "The decoder was trained on the last layer only; on other layers it is a logit lens. The ridge readout is the "
        "fair competitor."
    )
