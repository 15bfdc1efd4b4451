"""Settings that every training job shares: how long, how fast, and what is held out."""

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from xfm.engine.config import JobConfig


class TrainingConfig(JobConfig):
    """Fields of a training job."""

    workers: PositiveInt | None = None
    """Processes that share each batch; by default one, or one per GPU where --gpus is set. Other numbers of workers or
    threads round differently and drop other activations, but see the same batches and masks."""

    epochs: PositiveFloat = 6.0
    """Passes over the training cells."""

    steps: PositiveInt | None = None
    """Optimiser steps; replaces epochs."""

    max_seconds: PositiveFloat | None = None
    """Stop training after so many seconds, over all attempts; the result then depends on the machine."""

    batch_size: PositiveInt = 64
    """Cells of a step, over all workers."""

    batch_tokens: PositiveInt = 65536
    """Tokens of one pass through the model, padding included; a larger step takes several passes."""

    lr: PositiveFloat = 1e-4
    """Highest learning rate (AdamW)."""

    warmup: NonNegativeInt = 1000
    """Steps in which the learning rate grows to lr; unless given, at most a tenth of all steps."""

    schedule: Literal["cosine", "constant", "decay"] = "cosine"
    """After warmup: half a cosine down to 0, constant, or x 0.99 every 100 steps as the published model."""

    weight_decay: NonNegativeFloat = 0.0
    """Of AdamW."""

    clip: PositiveFloat = 1.0
    """Highest norm of the gradient."""

    validation_fraction: float = Field(0.1, ge=0, lt=1)
    """Share of cells that are never trained on, chosen by seed and row id."""

    group: str | None = None
    """obs column that must not stand on both sides of that split, e.g. donor_id; add it to --source.obs."""

    validation_cells: PositiveInt = 2000
    """Cells to validate on at most."""

    checkpoint_every: PositiveInt = 500
    """Steps between checkpoints, each with a validation; a crash loses no more."""

    log_every: PositiveInt = 20
    """Steps that one point of the loss curve averages."""

    watch: str | None = None
    """Validation score that says which weights are kept, e.g. validation_retrieval; with a minus in front the lowest is
    best (--watch=-validation_loss). Without: the last weights."""

    patience: PositiveInt | None = None
    """Validations without a better one that end training; goes with --watch."""

    threads: PositiveInt = 1
    """CPUs and threads of a worker. Without GPUs, small models gain more from --workers."""

    @model_validator(mode="after")
    def _patience_watches(self) -> Self:
        if self.patience is not None and self.watch is None:
            raise ValueError("--patience needs --watch: what must get better, e.g. --watch validation_retrieval")
        return self

    @classmethod
    def not_in_fingerprint(cls) -> set[str]:
        """A time budget may be raised to train on; it marks the report instead."""
        return super().not_in_fingerprint() | {"max_seconds", "threads", "log_every"}

    @classmethod
    def added_later(cls) -> dict[str, Any]:
        """See `Config`."""
        return {"watch": None, "patience": None}

    def total_steps(self, cells: int) -> int:
        """Steps over so many training cells."""
        return self.steps or max(1, round(self.epochs * cells / min(self.batch_size, cells)))
