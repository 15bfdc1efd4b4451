"""How a pretraining run goes, and how far it has come."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from xfm.tasks.masked_expression import Switches

Record = dict[str, float]


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        steps: in all.
        batch_size: cells of a step, over all workers.
        lr: its highest value.
        warmup: steps in which it grows to that.
        schedule: then constant, cosine (to 0 at the end) or decay (x 0.99 every 100 steps, as the published model).
        weight_decay: of AdamW.
        clip: highest norm of the gradient.
        weights: of the objectives.
        prompt_after: steps without the objective "prompt".
        log_every: steps that one record averages.
        checkpoint_every: steps between checkpoints, each with a validation.
        validation_cells: scored at most.
        max_seconds: stop early, counted over all attempts. The number of steps then depends on the machine.
        seed: keys everything random.
    """

    steps: int
    batch_size: int
    lr: float
    warmup: int
    schedule: Literal["constant", "cosine", "decay"]
    weight_decay: float
    clip: float
    weights: tuple[float, float, float]
    prompt_after: int
    log_every: int
    checkpoint_every: int
    validation_cells: int
    max_seconds: float | None
    seed: int

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
        return float(self.lr * 0.5 * (1 + np.cos(np.pi * min(done, 1.0))))

    def is_on(self, step: int) -> Switches:
        """Which objectives are trained after `step` steps."""
        masked, cell, prompt = (weight > 0 for weight in self.weights)
        return masked, cell, prompt and step >= self.prompt_after


@dataclass
class Progress:
    """How far a run is, over all its attempts.

    Attributes:
        step: steps done.
        seconds: spent training.
        history: one record every `log_every` steps: step, epoch, seconds, lr, and the mean loss of each objective
            since the record before; with validation_NAME where there was a validation.
    """

    step: int = 0
    seconds: float = 0.0
    history: list[Record] = field(default_factory=list)
