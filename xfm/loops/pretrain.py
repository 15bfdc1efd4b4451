"""Pretraining of scGPT in one process or several: masked expression and generation by cell prompt.

Of each cell some genes are hidden: their value enters as the mask value. Three predictions of the hidden bins are
trained, each by its mean squared error over all hidden positions of the batch (Cui et al., Nature Methods 2024):

    masked   the expression decoder on the hidden gene's own last state
    cell     the MVC decoder: from the cell's vector and the gene's embedding alone
    prompt   a second pass with the cell vector of the first, detached, as the input at <cls>; from some step on

Every token attends to every other. That is the attention of the published fine-tuning code and of the backbone that
reads the checkpoint; the paper's pretraining instead shows hidden genes nothing of each other, which here would be a
different model than the one that extracts layers.

Gradients are summed over workers, not averaged over their means: the loss of a step is that of its whole batch for
any number of workers. Masks are keyed by cell and epoch, dropout by step and worker.
"""

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfm.core.errors import Refused
from xfm.core.random import key64
from xfm.core.schema import INPUT_IDS, VALUES
from xfm.loops.group import Group
from xfm.loops.pretrain_data import Cells, Example, Masker, Order
from xfm.models.scgpt.network import ScGPTBackbone
from xfm.nn.losses import squared_error
from xfm.tokenizers.binned import ragged

logger = logging.getLogger(__name__)

Record = dict[str, float]
F64 = NDArray[np.float64]
OBJECTIVES = ("masked", "cell", "prompt")
# Columns of what validation returns for each cell: hidden genes, then summed squared errors.
SCORES = ("n", *OBJECTIVES, "gene_mean", "cell_mean")
GENE_MEAN_CELLS = 20_000  # enough for a mean of each gene; more would only be read


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
        weights: of the three objectives, in the order of OBJECTIVES.
        prompt_after: steps without the third.
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


@dataclass
class Progress:
    """How far a run is, over all its attempts.

    Attributes:
        step: steps done.
        seconds: spent training.
        history: one record every `log_every` steps: step, epoch, lr, and the mean loss of each objective since the
            record before; with validation_NAME where there was a validation.
    """

    step: int = 0
    seconds: float = 0.0
    history: list[Record] = field(default_factory=list)


class Trainer:
    """One worker's share of a training run. Every worker makes the same calls.

    Args:
        network: trained in place.
        masker: makes examples.
        cells: the tokens, in parts.
        training, validation: cells of each part on either side.
        settings: the recipe.
        group: who else trains.
        device: of the network.
        note: called on worker 0 with every new record.
    """

    def __init__(
        self,
        network: ScGPTBackbone,
        masker: Masker,
        cells: Cells,
        training: Iterable[int],
        validation: Iterable[int],
        settings: Settings,
        *,
        group: Group | None = None,
        device: str = "cpu",
        note: Callable[[Record], None] = lambda _: None,
    ) -> None:
        self.network, self.masker, self.cells, self.settings = network, masker, cells, settings
        self.group, self.device, self.note = group or Group(), device, note
        self.training, self.validation = np.array([*training], np.int64), np.array([*validation], np.int64)
        self.order = Order(self.training, settings.batch_size, settings.seed)
        if self.order.batch_size < self.group.world:
            raise Refused("FEW_CELLS", f"{self.group.world} workers cannot share a batch of {self.order.batch_size} "
                          "cells; give fewer --workers")  # fmt: skip
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, settings.lr, weight_decay=settings.weight_decay, fused=True)
        self.progress = Progress()
        # Since the last record: this worker's summed errors, and all workers' hidden positions, of each objective.
        self._errors = torch.zeros(len(OBJECTIVES), dtype=torch.float64, device=device)
        self._hidden = np.zeros(len(OBJECTIVES))
        self._held_out: list[Example] | None = None

    @property
    def is_done(self) -> bool:
        """All steps done, or out of time."""
        return self.progress.step >= self.settings.steps or self.is_out_of_time

    @property
    def is_out_of_time(self) -> bool:
        """Whether the time budget ends the run."""
        return self.settings.max_seconds is not None and self.progress.seconds >= self.settings.max_seconds

    def run(self, save: Callable[[], None]) -> None:
        """Trains to the end; calls `save` every `checkpoint_every` steps and after the last.

        Raises:
            Refused: NOT_FINITE, the loss overflowed.
        """
        self.network.train()
        started = time.monotonic() - self.progress.seconds
        with ThreadPoolExecutor(1) as ahead:
            future = ahead.submit(self._examples, self.progress.step)
            while not self.is_done:
                examples = future.result()
                future = ahead.submit(self._examples, self.progress.step + 1)
                self._step(examples, started)
                step = self.progress.step
                is_checkpoint = self.is_done or step % self.settings.checkpoint_every == 0
                if is_checkpoint or step % self.settings.log_every == 0:
                    self._record(is_checkpoint)
                if is_checkpoint:
                    save()

    def loss(self, examples: list[Example], hidden: float) -> Tensor:
        """Adds the gradient of the examples' loss, all but its sum over workers.

        Args:
            examples: this worker's part of the batch.
            hidden: hidden positions of the whole batch.

        Returns:
            (3,) summed squared errors of this worker's examples, 0 for an objective that is not on.
        """
        weights = torch.tensor(self.settings.weights, dtype=torch.float64, device=self.device)
        total = torch.zeros(len(OBJECTIVES), dtype=torch.float64, device=self.device)
        for example in examples:
            errors = objective_errors(self.network, example.to(self.device), self._is_on()).double().sum(dim=1)
            ((errors * weights).sum() / hidden).backward()  # type: ignore[no-untyped-call]
            total += errors.detach()
        return total

    def validate(self) -> F64:
        """(C, 6) SCORES of up to `validation_cells` cells, with masks that never change; NaN for what is not on.

        Every worker scores its share and gets all.
        """
        if not self.validation.sum():
            return np.empty((0, len(SCORES)))
        examples, count = self._validation_examples()
        scores = torch.zeros(count, 1 + len(OBJECTIVES), dtype=torch.float64, device=self.device)
        self.network.eval()
        with torch.inference_mode():
            for example in examples:
                rows = torch.from_numpy(example.rows * self.group.world + self.group.rank).to(self.device)
                errors = objective_errors(self.network, example.to(self.device), self._is_on())
                scores[rows, 0] = example.hidden.sum(dim=1).to(scores)
                scores[rows, 1:] = errors.T.double()
        self.network.train()
        merged = self.group.sum(scores).cpu().numpy()
        merged[:, 1:][:, [not on for on in self._is_on()]] = np.nan
        return np.concatenate([merged, np.full((count, 2), np.nan)], axis=1)

    def score(self) -> F64:
        """As `validate`, with the errors of two guesses that need no model: the gene's mean and the cell's."""
        scores = self.validate()
        if not len(scores):
            return scores
        means = torch.from_numpy(self._gene_means()).to(torch.float64)
        guesses = torch.zeros(len(scores), 2, dtype=torch.float64)
        for example in self._validation_examples()[0]:
            assert example.tokens.values is not None
            shown = example.tokens.is_content & ~example.hidden
            visible = example.tokens.values.double().masked_fill(~shown, 0.0).sum(1) / shown.sum(1).clamp(min=1)
            # A cell of one gene shows nothing when that one is hidden; the middle gene's mean is then the best guess.
            visible = torch.where(shown.any(1), visible, means.median())
            by_gene = squared_error(means[example.tokens.ids], example.target.double(), example.hidden)
            by_cell = squared_error(visible[:, None], example.target.double(), example.hidden)
            guesses[example.rows * self.group.world + self.group.rank] = torch.stack([by_gene, by_cell], dim=1)
        scores[:, -2:] = self.group.sum(guesses.to(self.device)).cpu().numpy()
        return scores

    def _is_on(self) -> tuple[bool, bool, bool]:
        masked, cell, prompt = (weight > 0 for weight in self.settings.weights)
        return masked, cell, prompt and self.progress.step >= self.settings.prompt_after

    def _examples(self, step: int) -> list[Example]:
        epoch, parts, rows = self.order.batch(step)
        mine = slice(self.group.rank, None, self.group.world)
        return self.masker.examples(self.cells.take(parts[mine], rows[mine]), f"epoch {epoch}")

    def _step(self, examples: list[Example], started: float) -> None:
        settings, progress = self.settings, self.progress
        clock = time.monotonic() - started if self.group.rank == 0 else 0.0
        counts = [float(sum(int(example.hidden.sum()) for example in examples)), clock]
        # Worker 0's clock rules: all must leave the loop after the same step.
        hidden, progress.seconds = self.group.sum(torch.tensor(counts, dtype=torch.float64, device=self.device)).tolist()
        # Dropout takes no generator of its own. Keyed by step, so that a resumed run drops what it would have.
        torch.manual_seed(key64(settings.seed, f"dropout {progress.step} {self.group.rank}"))
        self.optimizer.zero_grad()
        self._errors += self.loss(examples, hidden)
        self._hidden += hidden * np.array(self._is_on())
        self._sum_gradients()
        torch.nn.utils.clip_grad_norm_(self.parameters, settings.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr_at(progress.step, progress.seconds)
        self.optimizer.step()
        progress.step += 1

    def _sum_gradients(self) -> None:
        if self.group.world == 1:
            return
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        flat = self.group.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def _record(self, with_validation: bool) -> None:
        errors, step = self.group.sum(self._errors.clone()).cpu().numpy(), self.progress.step
        if not np.isfinite(errors).all():
            raise Refused("NOT_FINITE", f"the loss is not finite around step {step}; a lower --lr or a longer --warmup helps")
        record: Record = {
            "step": step,
            "epoch": step / self.order.batches_per_epoch,
            "seconds": self.progress.seconds,
            "lr": self.optimizer.param_groups[0]["lr"],
        }
        counted = zip(OBJECTIVES, errors, self._hidden, strict=True)
        record |= {name: float(error / hidden) for name, error, hidden in counted if hidden}
        if with_validation and len(scores := self.validate()):
            means = scores[:, 1 : 1 + len(OBJECTIVES)].sum(axis=0) / scores[:, 0].sum()
            validation = zip(OBJECTIVES, means, self._is_on(), strict=True)
            record |= {f"validation_{name}": float(mean) for name, mean, is_on in validation if is_on}
        self._errors.zero_()
        self._hidden[:] = 0
        self.progress.history.append(record)
        if self.group.rank == 0:
            self.note(record)

    def _validation_examples(self) -> tuple[list[Example], int]:
        """This worker's, and how many cells all have; worker r scores cells r, r + world, ..."""
        count = min(self.settings.validation_cells, int(self.validation.sum()))
        if self._held_out is None:
            _, parts, rows = Order(self.validation, count, self.settings.seed).batch(0)
            mine = slice(self.group.rank, None, self.group.world)
            # Validation cells stand behind the training cells of their part.
            table = self.cells.take(parts[mine], (rows + self.training[parts])[mine]) if count > self.group.rank else None
            self._held_out = self.masker.examples(table, "validation") if table is not None else []
        return self._held_out, count

    def _gene_means(self) -> F64:
        """(V,) mean bin of each token over training cells, the overall mean for a gene they lack."""
        count = min(GENE_MEAN_CELLS, int(self.training.sum()))
        _, parts, rows = Order(self.training, count, self.settings.seed).batch(0)
        return gene_means(self.cells.take(parts, rows), self.network.architecture.n_tokens)


def objective_errors(network: ScGPTBackbone, example: Example, is_on: tuple[bool, bool, bool]) -> Tensor:
    """(3, B) summed squared errors of the objectives, in the order of OBJECTIVES; 0 where one is not on."""
    tokens, target, hidden = example.tokens, example.target, example.hidden
    last = _last_state(network.layers(tokens))
    cell = network.cell(last, tokens)
    errors = [target.new_zeros(len(target)) for _ in OBJECTIVES]
    if is_on[0]:
        errors[0] = squared_error(network.decode_expression(last, tokens), target, hidden)
    if is_on[1]:
        errors[1] = squared_error(network.mvc(cell, tokens), target, hidden)
    if is_on[2]:
        again = _last_state(network.layers(tokens, cell_prompt=cell.detach()))
        errors[2] = squared_error(network.decode_expression(again, tokens), target, hidden)
    return torch.stack(errors)


def gene_means(cells: pa.Table, n_tokens: int) -> F64:
    """(V,) mean bin of each token id over cells; the overall mean for a token they lack."""
    table = cells.combine_chunks()
    offsets, ids = ragged(table[INPUT_IDS].chunk(0))
    _, values = ragged(table[VALUES].chunk(0))
    is_gene = np.ones(len(ids), dtype=bool)
    is_gene[offsets[:-1]] = False
    counts = np.bincount(ids[is_gene], minlength=n_tokens)
    sums = np.bincount(ids[is_gene], values[is_gene], minlength=n_tokens)
    return np.where(counts > 0, sums / np.maximum(counts, 1), sums.sum() / counts.sum())


def _last_state(states: Iterable[Tensor]) -> Tensor:
    last: Any = None
    for state in states:
        last = state
    assert isinstance(last, Tensor)
    return last
