"""The two stages of a layerwise job: fit readouts on some cells, score every layer on the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from xfm.core.backbone import BackboneConfig
from xfm.core.errors import Refused
from xfm.core.random import key64
from xfm.core.report import Figure
from xfm.core.source import Shard, Source
from xfm.core.storage import below
from xfm.core.tracker import Tracker
from xfm.engine.output import Output
from xfm.engine.planning import describe_plan, plan_shards
from xfm.engine.session import OpenJob, open_job, print_plan
from xfm.engine.stage import StageResult, run_stage
from xfm.metrics.regression import SUMS
from xfm.plots.layer_curve import Baseline, Series, draw_layer_curve
from xfm.studies.layerwise.config import LayerwiseJob
from xfm.studies.layerwise.readouts import Readouts, fit_readouts
from xfm.studies.layerwise.report import LABELS, Scores, layerwise_report, score
from xfm.studies.layerwise.scoring import BASELINES, F64, READOUTS, Design, FitLayers, ScoreLayers, score_columns

LEAST_UNKNOWN = 4  # compressed files to fit on at least: one may be broken, or one patient's


@dataclass(frozen=True, slots=True)
class Layerwise:
    """What both stages need."""

    source: Source
    backbone: BackboneConfig
    shards: Sequence[Shard]
    design: Design
    workers: int | None
    gpus: float
    run: dict[str, Any]
    job: OpenJob

    def stage(self, name: str, shards: Sequence[Shard], build: Callable[[Design], Any], output: Output) -> StageResult:
        """One pass over shards, resumable on its own under OUTPUT/NAME."""

        def on(device: str) -> Any:
            return build(replace(self.design, device=device))

        return run_stage(
            self.source, self.backbone, self.design.seed, shards, on, output,
            stage=name, workers=self.workers, gpus=self.gpus, attempt=self.job.attempt,
        )  # fmt: skip

    def open(self, name: str, **more: str) -> Output:
        """The OUTPUT of one stage; `more` is what its numbers depend on besides the job's recipe."""
        run = {**self.run, "job": f"layerwise {name}", "recipe": self.run["recipe"] | more}
        return Output(below(self.job.output.uri, name), run, joint=True)


def run_layerwise(config: LayerwiseJob) -> int:
    """Fits, scores, reports; returns the exit code."""
    plan = plan_shards("layerwise", config, config.source, config.backbone)
    config.backbone.check_decoder()
    n_layers = config.backbone.n_layers()
    if config.dry_run:
        columns = len(list(score_columns(config.modes, n_layers, misaligned=config.misaligned)))
        return print_plan(describe_plan(plan, columns, len(SUMS), 8, config.workers, config.gpus))
    design = Design(config.modes, config.mask_fraction, config.fit_fraction, config.group, config.seed,
                    config.batch_tokens, "cpu", config.misaligned)  # fmt: skip
    with open_job(config, plan.run, joint=True) as job:
        work = Layerwise(
            config.source, config.backbone, plan.shards, design, config.workers, config.gpus, plan.run, job
        )
        readouts, best = fit(work, fit_shards(plan.shards, config.fit_cells, config.fit_fraction, config.seed))
        columns_of_cells, groups, result = score_cells(work, readouts)
        scores = score(columns_of_cells, config.modes, n_layers, config.seed, config.bootstrap, groups)
        track_scores(scores, job.tracker)
        report = layerwise_report(scores, best, plan.run, result.refused, config.notes)
        return job.finish(report, partial(draw, scores), rows=scores.cells, refusals=result.quarantined)


def fit_shards(shards: Sequence[Shard], fit_cells: int, fit_fraction: float, seed: int) -> list[Shard]:
    """Enough shards, in keyed order, to hold about `fit_cells` fitting cells; all where there are fewer."""
    chosen: list[Shard] = []
    cells = 0.0
    for shard in sorted(shards, key=lambda shard: key64(seed, f"fit\x1f{shard.key}")):
        if cells >= fit_cells:
            break
        chosen.append(shard)
        cells += shard.rows * fit_fraction if shard.rows is not None else fit_cells / LEAST_UNKNOWN
    kept = {shard.key for shard in chosen}
    return [shard for shard in shards if shard.key in kept]


def fit(work: Layerwise, shards: Sequence[Shard]) -> tuple[Readouts, dict[tuple[str, str], int]]:
    """Stage one.

    Returns:
        The readouts, and for each (mode, readout) the layer that did best on the fitting cells.

    Raises:
        Refused: NO_FIT_CELLS.
    """
    identity = work.run["recipe"]["weights"]
    with work.open("fit") as output:
        work.stage("fit", shards, lambda design: partial(FitLayers, work.backbone, design, identity=identity), output)
        sums = _merge_sums(output, [shard.key for shard in shards])
    return fit_readouts(sums, work.design.modes, work.backbone.n_layers(), work.backbone.dim())


def score_cells(work: Layerwise, readouts: Readouts) -> tuple[dict[str, F64], list[str] | None, StageResult]:
    """Stage two: {column: (C, 5)} over all scored cells, the group of each, and what the pass refused.

    Raises:
        Refused: NO_SCORED_CELLS.
    """
    identity = work.run["recipe"]["weights"]
    with work.open("score", readouts=readouts.digest()) as output:

        def build(design: Design) -> Any:
            return partial(ScoreLayers, work.backbone, design, readouts, identity=identity)

        result = work.stage("score", work.shards, build, output)
        names = score_columns(work.design.modes, work.backbone.n_layers(), misaligned=work.design.misaligned)
        columns: dict[str, list[F64]] = {name: [] for name in names}
        groups: list[str] = []
        for key in output.committed:
            table = output.read_part(key)
            groups += map(str, table[work.design.group].to_pylist()) if work.design.group else ()
            for name, pieces in columns.items():
                pieces.append(table[name].combine_chunks().flatten().to_numpy().reshape(-1, len(SUMS)))
    merged = {name: np.concatenate(pieces) if pieces else np.empty((0, len(SUMS))) for name, pieces in columns.items()}
    if not len(next(iter(merged.values()))):
        raise Refused("NO_SCORED_CELLS", "no cell is left to score; lower --fit_fraction or give more cells")
    return merged, groups if work.design.group else None, result


def track_scores(scores: Scores, tracker: Tracker) -> None:
    """Every readout as a step curve over the layers: in a child run for each mode, and as a group in the job's run."""
    for mode in scores.modes:
        child = tracker.child(mode)
        base = scores.strongest(mode)
        baselines = {f"{name}_mse": scores.by_name[f"{mode}_{name}"].mse.value for name in BASELINES}
        child.metrics({f"baselines/{name}": value for name, value in baselines.items()})
        tracker.metrics({f"{mode}_baselines/{name}": value for name, value in baselines.items()})
        for layer in range(scores.n_layers + 1):
            items = {readout: scores.layer(mode, readout, layer) for readout in READOUTS}
            values = {f"{readout}_mse": item.mse.value for readout, item in items.items()}
            values |= {
                f"{readout}_skill": skill.value for readout, item in items.items() if (skill := item.skill[base])
            }
            values |= {f"{readout}_pearson": item.pearson.value for readout, item in items.items() if item.pearson}
            child.metrics(values, step=layer)
            tracker.metrics({f"{mode}/{name}": value for name, value in values.items()}, step=layer)
        child.close()


def draw(scores: Scores, folder: Path) -> list[Figure]:
    """The layer curve of every mode, masked first."""
    figures = []
    for mode in sorted(scores.modes, key=lambda mode: mode != "masked"):
        layers = range(scores.n_layers + 1)
        series = []
        for readout in ("ridge", "calibrated"):
            mse = [scores.layer(mode, readout, layer).mse for layer in layers]
            ends = zip(*(each.ends for each in mse), strict=True)
            series.append(Series(LABELS[readout], layers, [e.value for e in mse], *map(list, ends)))
        baselines = []
        for name in BASELINES:
            own = scores.by_name[f"{mode}_{name}"].mse
            baselines.append(Baseline(LABELS[name], own.value, own.low, own.high))
        what = "genes hidden from the input" if mode == "masked" else "the input holds the answer"
        figures.append(
            draw_layer_curve(
                folder,
                f"{mode}_mse",
                series,
                baselines,
                metric="MSE (bins²)",
                higher_is_better=False,
                title=f"{mode.capitalize()} expression: {what}",
                caption=f"Error of reading {mode} expression from each layer, {scores.cells:,} cells, 95 % intervals "
                f"over {scores.resampled}; dashed: baselines that need no model. The uncalibrated "
                "decoder is in the table only.",
            )
        )
    return figures


def _merge_sums(output: Output, keys: Sequence[str]) -> dict[str, F64]:
    """Adds up the parts in shard order, so that the result does not depend on who finished first."""
    merged: dict[str, F64] = {}
    committed = output.committed
    for key in (key for key in keys if key in committed):
        table = output.read_part(key)
        for name, values in zip(table["name"].to_pylist(), table["values"].combine_chunks(), strict=True):
            part = values.values.to_numpy()
            merged[name] = merged[name] + part if name in merged else part
    return merged
