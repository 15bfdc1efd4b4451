"""Settings of a layerwise job: which expression is read back, and how it is scored."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from xfm.core.unions import AnyBackbone, AnySource
from xfm.engine.config import JobConfig

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

    misaligned: bool = False
    """Adds the score of the study that this job corrects: each prediction against the next gene's value."""

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
