"""Settings that every training shares: what is held out, how long, and how fast. `epochs` is their one unit of time."""

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from xfm.core.config import Config
from xfm.core.errors import Refused
from xfm.core.metric import find_metric
from xfm.training.settings import VALIDATION, Settings

MOST_WARMUP = 1000  # steps, where none was asked for
MOST_BETWEEN = 500  # steps between checkpoints, where nothing was asked for


class TrainingConfig(Config):
    """How something is trained, and on which rows."""

    split: str | None = None
    """Column that says train, validation or test, of data that come split; without, rows are drawn by shares."""

    validation: float = Field(0.2, ge=0, lt=1)
    """Share of rows that are never trained on and say which weights are best; unused with --split, but for --carve."""

    test: float = Field(0.2, ge=0, lt=1)
    """Share of rows that are scored once, at the end; unused with --split."""

    carve: bool = False
    """With --split: take --validation of the training rows as validation rows, where the data name none."""

    group: str | None = None
    """Column that must not stand on both sides of a drawn split (donor_id, film); intervals resample it."""

    validation_rows: PositiveInt = 2000
    """Rows that a validation reads at most, where no label says how many of each class there must be."""

    split_seed: NonNegativeInt = 0
    """Keys split, tokens and resamples, which are the same for every --seed."""

    seed: NonNegativeInt = 0
    """Keys weights, order, masks and dropout."""

    epochs: PositiveFloat = 100.0
    """Passes over the training rows at most."""

    steps: PositiveInt | None = None
    """Optimiser steps at most; replaces epochs."""

    max_seconds: PositiveFloat | None = None
    """Stop training after so many seconds, over all attempts; the result then depends on the machine."""

    batch_size: PositiveInt = 64
    """Rows of a step, over all workers."""

    batch_tokens: PositiveInt = 16384
    """Tokens of one pass through the network, padding included; a larger step takes several passes."""

    lr: PositiveFloat = 2e-5
    """Highest learning rate (AdamW)."""

    warmup: NonNegativeFloat | None = 0.06
    """Epochs in which the learning rate grows to lr; where it is null, a tenth of all steps, at most 1,000."""

    schedule: Literal["linear", "cosine", "constant", "decay"] = "linear"
    """After warmup: a line or half a cosine down to 0 at the last step, constant, or x 0.99 every 100 steps."""

    weight_decay: NonNegativeFloat = 0.01
    """Of AdamW; biases and norms are left alone."""

    clip: PositiveFloat = 1.0
    """Highest norm of the gradient."""

    checkpoint_every: PositiveFloat | None = 1.0
    """Epochs between checkpoints, each with a validation; a crash loses no more. Where it is null, a tenth of the
    training, at most 500 steps."""

    log_every: PositiveInt = 10
    """Steps that one point of the loss curve averages."""

    watch: str | None = None
    """Validation score that says which weights are kept, e.g. f1 or loss; with a minus in front the lowest is best, as
    it always is of losses and errors. Where it is null, the last weights."""

    patience: PositiveInt | None = None
    """Validations without a better one that end training; goes with --watch."""

    bootstrap: PositiveInt = 2000
    """Resamples of rows, or groups, for the 95 % intervals."""

    notes: tuple[str, ...] = ()
    """Sentences to put on the report, e.g. published numbers and what differs."""

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.patience is not None and self.watch is None:
            raise ValueError("--patience needs --watch: what must get better, e.g. --watch loss")
        if self.carve and self.split is None:
            raise ValueError("--carve goes with --split: without it --validation is drawn anyway")
        if self.split is None and self.validation + self.test >= 1:
            raise ValueError(f"--validation {self.validation:g} and --test {self.test:g} leave no row to train on")
        if self.steps is None and (problem := self.too_long(self.epochs)):
            raise ValueError(problem)
        return self

    def too_long(self, epochs: float) -> str:
        """What is wrong with a warmup, or a time between checkpoints, of more epochs than these; empty if nothing."""
        for name in ("warmup", "checkpoint_every"):
            asked = getattr(self, name)
            if asked is not None and asked > max(epochs, 1.0):
                return f"--{name} {asked:g} is counted in epochs, not in steps, and there are only {epochs:.3g}"
        return ""

    @classmethod
    def not_in_fingerprint(cls) -> set[str]:
        """A time budget may be raised to train on; it marks the report instead."""
        return super().not_in_fingerprint() | {"max_seconds", "log_every", "notes"}

    @classmethod
    def renamed(cls) -> dict[str, str]:
        """See `Config`."""
        return {"validation_fraction": "validation", "validation_cells": "validation_rows"}

    @property
    def watched(self) -> str:
        """`watch` as the trainer takes it: "validation_f1", "-validation_loss"; empty where nothing is watched."""
        if self.watch is None:
            return ""
        name = self.watch.removeprefix("-").removeprefix(VALIDATION)
        known = find_metric(name)
        is_lowest = self.watch.startswith("-") or (known is not None and known.better == "lower")
        return f"{'-' if is_lowest else ''}{VALIDATION}{name}"


def settings_of(config: TrainingConfig, rows: int) -> Settings:
    """How to train on so many rows.

    Raises:
        Refused: BAD_SETTINGS, a warmup or a time between checkpoints that was meant in steps.
    """
    batch = min(config.batch_size, rows)
    a_pass = rows // batch
    steps = config.steps or max(1, round(config.epochs * a_pass))
    if problem := config.too_long(steps / a_pass if config.steps else config.epochs):
        raise Refused("BAD_SETTINGS", problem)
    warmup = min(steps // 10, MOST_WARMUP) if config.warmup is None else min(round(config.warmup * a_pass), steps)
    every = min(steps // 10, MOST_BETWEEN) if config.checkpoint_every is None else config.checkpoint_every * a_pass
    return Settings(
        steps=steps, batch_size=batch, lr=config.lr, schedule=config.schedule, weight_decay=config.weight_decay,
        warmup=warmup, clip=config.clip, log_every=config.log_every, checkpoint_every=max(1, round(every)),
        max_seconds=config.max_seconds, seed=config.seed, watch=config.watched, patience=config.patience,
    )  # fmt: skip
