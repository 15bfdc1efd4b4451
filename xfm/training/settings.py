"""How a training run goes, how far it has come, and what comes out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Record = dict[str, float]
Schedule = Literal["constant", "cosine", "linear", "decay"]
VALIDATION = "validation_"  # names of a record that were measured on validation rows begin so


def measured(scores: Mapping[str, float]) -> Record:
    """Scores of validation rows as entries of a record."""
    return {f"{VALIDATION}{name}": float(value) for name, value in scores.items()}


def curves_of(record: Record, name: Callable[[str], str] = str) -> dict[str, float]:
    """A record without its step, as a tracker calls it: train/loss, validation/loss; `name` renames an entry."""
    curves = {}
    for key, value in record.items():
        plain = key.removeprefix(VALIDATION)
        if key != "step":
            curves[f"{'train' if plain == key else 'validation'}/{name(plain)}"] = value
    return curves


@dataclass(frozen=True)
class Settings:
    """How to train."""

    steps: int  # at most
    batch_size: int  # rows of a step, over all workers
    lr: float  # its highest value
    warmup: int  # steps in which it grows to that
    # then constant, cosine or linear (to 0 at the last step), or decay (x 0.99 every 100 steps, as scGPT's published
    # model)
    schedule: Schedule
    weight_decay: float  # of AdamW; biases and the weights of norms are left alone
    clip: float  # highest norm of the gradient
    log_every: int  # steps that one record averages
    checkpoint_every: int  # steps between checkpoints, each with a validation
    max_seconds: float | None  # stop early, counted over all attempts. The number of steps then depends on the machine.
    seed: int  # keys everything random
    # name of a record's entry that says which weights are best, e.g. "validation_f1"; with "-" in front the lowest is
    # best. Without: the last weights are kept.
    watch: str = ""
    patience: int | None = None  # validations without a better one that end training; None for none

    def lr_at(self, step: int, seconds: float) -> float:
        """Of the step after `step` others. A time budget moves the end of the schedule, not its beginning."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.lr
        if self.schedule == "decay":
            return float(self.lr * 0.99 ** ((step - self.warmup) / 100))
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        if self.max_seconds is not None:
            done = max(done, seconds / self.max_seconds)
        left = 1 - min(done, 1.0)
        return float(self.lr * (left if self.schedule == "linear" else 0.5 * (1 - np.cos(np.pi * left))))

    def merit(self, record: Record) -> float | None:
        """What `watch` sees in a record, higher is better; None where there was no validation."""
        name = self.watch.removeprefix("-")
        value = record.get(name) if name else None
        return -value if value is not None and self.watch.startswith("-") else value


@dataclass
class Progress:
    """How far a run is, over all its attempts."""

    step: int = 0  # steps done
    seconds: float = 0.0  # spent training
    best_step: int = 0  # after which the best weights were had; 0 where nothing is watched
    # one record every `log_every` steps: step, epoch, seconds, lr, and the mean of each loss since the record before;
    # with what `validate` said where there was a validation
    history: list[Record] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Trained:
    """What came out of a run."""

    # tensors that were trained, by name: the best ones where something was watched, else the last
    weights: dict[str, Any]
    steps: int  # steps, seconds: over all attempts
    seconds: float
    best_step: int  # after which `weights` were had
    history: list[Record]  # as in `Progress`
    outcome: dict[str, Any]  # what the learner says at the end, with these weights
    is_out_of_time: bool  # the time budget ended it
    is_stopped: bool  # patience ended it
