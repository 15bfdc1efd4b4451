"""Reads expression back from every layer, beside baselines that may beat it.

python jobs/layerwise.py --config jobs/presets/tcga_skcm.yaml --backbone.checkpoint DIR --output runs/skcm
"""

from functools import partial
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from xfm.core.unions import AnyBackbone, AnySource
from xfm.engine.config import JobConfig
from xfm.engine.job import main

Fraction = Annotated[float, Field(gt=0, lt=1)]


class LayerwiseJob(JobConfig):
    """Scores the expression decoder and a linear readout on every layer, against three baselines."""

    source: AnySource
    """Where cells come from."""

    backbone: AnyBackbone
    """The pretrained model; it must have an expression decoder."""

    modes: tuple[Literal["visible", "masked"], ...] = ("masked", "visible")
    """masked: scored genes are hidden from the input; visible: the input holds the answer."""

    mask_fraction: Fraction = 0.25
    """Share of a cell's genes that masked mode hides."""

    fit_fraction: Fraction = 0.5
    """Share of cells that baselines, calibration and readouts are fitted on; only the others are scored."""

    fit_cells: PositiveInt = 2000
    """About how many cells to fit on at most; a readout needs no more."""

    group: str | None = None
    """obs column that must not stand on both sides of the split, e.g. donor_id; add it to --source.obs."""

    bootstrap: PositiveInt = 1000
    """Resamples for the 95 % intervals: of cells, or of groups where --group is given."""

    batch_tokens: PositiveInt = 8192
    """Tokens of a batch, padding included."""

    notes: tuple[str, ...] = ()
    """Sentences to put on the report, e.g. what the data are not."""

    @classmethod
    def not_in_fingerprint(cls) -> set[str]:
        """Words change no number."""
        return super().not_in_fingerprint() | {"notes"}


def run(config: LayerwiseJob) -> int:
    """Fits, scores, reports; returns the exit code."""
    from xfm.engine import session
    from xfm.engine.planning import describe_plan, plan_shards
    from xfm.metrics.regression import SUMS
    from xfm.studies.layerwise.report import layerwise_report, score
    from xfm.studies.layerwise.run import Layerwise, draw, fit, fit_shards, score_cells, track_scores
    from xfm.studies.layerwise.scoring import Design, score_columns

    plan = plan_shards("layerwise", config, config.source, config.backbone)
    config.backbone.check_decoder()
    n_layers = config.backbone.n_layers()
    if config.dry_run:
        columns = len(list(score_columns(config.modes, n_layers)))
        return session.print_plan(describe_plan(plan, columns, len(SUMS), 8, config.workers, config.gpus))
    design = Design(config.modes, config.mask_fraction, config.fit_fraction, config.group, config.seed,
                    config.batch_tokens, "cpu")  # fmt: skip
    with session.open_job(config, plan.run, joint=True) as job:
        work = Layerwise(
            config.source, config.backbone, plan.shards, design, config.workers, config.gpus, plan.run, job
        )
        readouts, best = fit(work, fit_shards(plan.shards, config.fit_cells, config.fit_fraction, config.seed))
        columns_of_cells, groups, result = score_cells(work, readouts)
        scores = score(columns_of_cells, config.modes, n_layers, config.seed, config.bootstrap, groups)
        track_scores(scores, job.tracker)
        report = layerwise_report(scores, best, plan.run, result.refused, config.notes)
        return job.finish(report, partial(draw, scores), rows=scores.cells, refusals=result.quarantined)


if __name__ == "__main__":
    main(LayerwiseJob, run, "layerwise")
