"""From per-cell sums to the tables, the curve and the sentence of a layerwise job."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfm.core.random import rng_for
from xfm.core.report import Estimate, Report, Table
from xfm.judging.comparison import BEATS, UNTESTABLE, WORSE, Comparison, compared, few_groups
from xfm.metrics.paired import Difference, sign_flip_test
from xfm.metrics.resampling import GroupDraws, bootstrap, estimate, group_sums, ratios, weighted_sums
from xfm.studies.layerwise.scoring import BASELINES, F64, MISALIGNED, READOUTS, score_columns

LABELS = {
    "cell_mean": "mean of the cell",
    "gene_mean": "mean of the gene",
    "gene_shrunken": "mean of the gene, shrunken",
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
    skill: dict[str, Estimate | None]  # 1 - MSE / MSE of each baseline; None where the baseline makes no error
    cell_mse: tuple[float, float]  # cell_mse, cell_mae: mean and standard deviation over cells of a cell's own error
    cell_mae: tuple[float, float]
    undefined: int  # cells without a correlation
    squared: F64  # (G,) summed squared error of each group


@dataclass(slots=True)
class Scores:
    """All predictors of all modes, by column name of the parts."""

    cells: int
    n_layers: int
    modes: Sequence[str]
    by_name: dict[str, LayerScore] = field(default_factory=dict)
    seed: int = 0
    groups: int | None = None
    """Whole groups that intervals are over; None where they are over single cells."""

    @property
    def resampled(self) -> str:
        """What the intervals are over."""
        return "cells" if self.groups is None else f"{self.groups:,} groups of cells"

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
    names = [name for name in score_columns(modes, n_layers, misaligned=True) if name in columns]
    per_cell = np.stack([_summands(columns[name]) for name in names], axis=1)
    cells = len(per_cell)
    # Cells of one donor resemble each other: donors are drawn, whole.
    codes = np.arange(cells)
    if groups is not None:
        codes = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)[1]
    draws = GroupDraws(codes, seed, resamples)
    sums = group_sums(draws.codes, draws.n_groups, per_cell.reshape(cells, -1))

    def statistic(weights: NDArray[Any]) -> dict[str, F64]:
        totals = weighted_sums(weights, sums).reshape(len(weights), *per_cell.shape[1:])
        n, squared, absolute, pearson, spearman, has_pearson, has_spearman = np.moveaxis(totals, 2, 0)
        found = {"mse": ratios(squared, n), "mae": ratios(absolute, n)}
        found |= {"pearson": ratios(pearson, has_pearson), "spearman": ratios(spearman, has_spearman)}
        for base in BASELINES:
            of_mode = [names.index(f"{name.partition('_')[0]}_{base}") for name in names]
            found[base] = 1 - ratios(squared, squared[:, of_mode])
        return {f"{what} {name}": values[:, at] for what, values in found.items() for at, name in enumerate(names)}

    found = {name: estimate(*one, draws.n_groups) for name, one in bootstrap(draws, statistic).items()}
    scores = Scores(cells, n_layers, modes, seed=seed, groups=None if groups is None else draws.n_groups)
    for i, name in enumerate(names):
        count, cell_squared, cell_absolute, *_, has_pearson, _ = per_cell[:, i].T
        held = count > 0
        cell_mse, cell_mae = cell_squared[held] / count[held], cell_absolute[held] / count[held]
        mse, mae = found[f"mse {name}"], found[f"mae {name}"]
        assert mse is not None
        assert mae is not None
        scores.by_name[name] = LayerScore(
            mse=mse,
            mae=mae,
            pearson=found[f"pearson {name}"],
            spearman=found[f"spearman {name}"],
            skill={base: found[f"{base} {name}"] for base in BASELINES},
            cell_mse=(float(cell_mse.mean()), float(cell_mse.std())),
            cell_mae=(float(cell_mae.mean()), float(cell_mae.std())),
            undefined=cells - int(has_pearson.sum()),
            squared=sums.reshape(draws.n_groups, *per_cell.shape[1:])[:, i, 1],
        )
    return scores


def _summands(sums: F64) -> F64:
    """(C, 5) cell sums to (C, 7): undefined correlations count 0, and the last two say whether they are defined."""
    correlations = sums[:, 3:]
    defined = np.isfinite(correlations)
    return np.hstack([sums[:, :3], np.where(defined, correlations, 0.0), defined])


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
    """Words only where the test supports them."""
    base, at = scores.strongest(mode), best[mode, "ridge"]
    what = "hidden genes" if mode == "masked" else "visible genes"
    test = against_baseline(scores, mode, at, base)
    if test is None:
        return f"The strongest baseline for {what}, {LABELS[base]}, makes no error: there is nothing to beat."
    last = scores.layer(mode, "ridge", scores.n_layers).skill[base]
    assert last is not None
    found = f"skill {test.difference.words('+.3f')}; the last layer has {last.words('+.3f')}"
    reading = f"Reading {what} linearly from layer {at} (chosen on other cells)"
    if test.verdict == UNTESTABLE:
        return f"{reading}: whether it beats the strongest baseline, {LABELS[base]}, is {test.words}: {found}."
    word = {BEATS: "beats", WORSE: "is worse than"}.get(test.verdict, "is not told apart from")
    return f"{reading} {word} the strongest baseline, {LABELS[base]}: {found}."


def against_baseline(scores: Scores, mode: str, layer: int, base: str) -> Comparison | None:
    """A layer's ridge readout against a baseline: its skill, and p from turning round which of both errs less, group by
    group. None where the baseline makes no error."""
    own = scores.layer(mode, "ridge", layer)
    skill = own.skill[base]
    if skill is None:
        return None
    gains = scores.by_name[f"{mode}_{base}"].squared - own.squared
    p = sign_flip_test(gains, rng_for(scores.seed, f"{mode} ridge {layer} against {base}"))
    difference = Difference(skill.value, skill.low, skill.high, p, skill.why)
    return compared(f"layer {layer}", base, difference, p, len(gains))


def _tables(scores: Scores, mode: str, best: Mapping[tuple[str, str], int]) -> Iterator[Table]:
    base = scores.strongest(mode)
    what = "the scored genes are hidden from the input" if mode == "masked" else "the input holds the answer"
    chosen = ", ".join(f"{LABELS[r]}: {best[mode, r]}" for r in READOUTS)
    compact: list[list[Any]] = []
    for name in BASELINES:
        own = scores.by_name[f"{mode}_{name}"]
        compact.append([LABELS[name], None, None, own.mse, own.skill[base] if name != base else None])
    for layer in range(scores.n_layers + 1):
        decoder, calibrated, ridge = (scores.layer(mode, readout, layer) for readout in READOUTS)
        skill = ridge.skill[base]
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
    return [item.mse, item.mae, item.pearson, item.spearman, *(item.skill[name] for name in BASELINES)]


def _reference_table(scores: Scores) -> Table:
    has_misaligned = f"visible_{MISALIGNED}_l00" in scores.by_name
    rows: list[list[Any]] = []
    for layer in range(scores.n_layers + 1):
        item = scores.layer("visible", "decoder", layer)
        wrong = [scores.layer("visible", MISALIGNED, layer)] if has_misaligned else []
        rows.append([f"layer {layer}", *(number for one in (item, *wrong) for number in _per_cell(one))])
    own = scores.by_name["visible_cell_mean"]
    rows.append(["baseline: mean of the cell", *_per_cell(own), *([None] * 5 if has_misaligned else [])])
    heads = ["MSE mean", "MSE sd", "MAE mean", "MAE sd", "Pearson mean"]
    return Table(
        name="reference_columns",
        caption="The columns of the layer-wise study this job corrects: errors per cell, then mean and sd over cells",
        columns=["predictor", *heads, *(f"{head}, against the next gene" for head in heads if has_misaligned)],
        rows=rows,
        note="There, each gene's prediction was compared with the next gene's value, in another unit, and layer 0 was "
        "the output of the first block (our layer 1); here positions and units (bins) agree. Layer 1 came out best "
        "there because the decoder, which was trained on the last layer alone, says its smallest numbers of that "
        "layer, nearest to log values below 1: the smallest output, and not the best one. Its baseline, the mean of "
        "the cell, is the mean of the very answers, which no model is shown."
        + ("" if has_misaligned else " --misaligned true adds that score."),
    )


def _per_cell(item: LayerScore) -> list[float | None]:
    return [*item.cell_mse, *item.cell_mae, item.pearson.value if item.pearson else None]


def _cautions(scores: Scores) -> Iterator[str]:
    if scores.groups is not None and (few := few_groups(scores.groups)):
        yield few
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
