"""Pretraining in one process or several: plain PyTorch, deterministic, resumable at any step.

Gradients are summed over workers, not averaged over their means: the loss of a step is that of its whole batch,
divided by all its hidden positions, for any number of workers. Masks are keyed by cell and epoch, dropout by step
and worker, so that nothing but weights, optimiser and progress has to be saved.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfm.core.errors import Refused
from xfm.core.random import key64
from xfm.loops.group import Group
from xfm.loops.pretrain_data import Cells, Masker, Order
from xfm.loops.pretrain_settings import Progress, Record, Settings
from xfm.loops.pretrain_validation import Validation
from xfm.models.scgpt.network import ScGPTBackbone
from xfm.tasks.masked_expression import OBJECTIVES, Example, Switches, objective_errors


class Trainer:
    """One worker's share of a training run. Every worker makes the same calls.

    Args:
        network: trained in place.
        masker: makes examples.
        cells: the tokens, in parts.
        training, validation: cells of each part on either side; training cells stand first.
        settings: the recipe.
        group: who else trains.
        device: of the network.
        note: called on worker 0 with every new record.

    Raises:
        Refused: NO_TRAINING_CELLS, or FEW_CELLS for so many workers.
    """

    def __init__(
        self,
        network: ScGPTBackbone,
        masker: Masker,
        cells: Cells,
        training: Sequence[int],
        validation: Sequence[int],
        settings: Settings,
        *,
        group: Group | None = None,
        device: str = "cpu",
        note: Callable[[Record], None] = lambda _: None,
    ) -> None:
        self.network, self.masker, self.cells, self.settings = network, masker, cells, settings
        self.group, self.device, self.note = group or Group(), device, note
        self.order = Order(training, settings.batch_size, settings.seed)
        if self.order.batch_size < self.group.world:
            raise Refused(
                "FEW_CELLS",
                f"{self.group.world} workers cannot share {self.order.batch_size} cells a batch; give fewer --workers",
            )
        self.validation = Validation(
            masker, cells, training, validation, limit=settings.validation_cells, seed=settings.seed,
            group=self.group, device=device,
        )  # fmt: skip
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, settings.lr, weight_decay=settings.weight_decay, fused=True)
        self.progress = Progress()
        # Since the last record: this worker's summed errors, and all workers' hidden positions, of each objective.
        self._errors = torch.zeros(len(OBJECTIVES), dtype=torch.float64, device=device)
        self._hidden = np.zeros(len(OBJECTIVES))

    @property
    def is_done(self) -> bool:
        """All steps done, or out of time."""
        return self.progress.step >= self.settings.steps or self.is_out_of_time

    @property
    def is_out_of_time(self) -> bool:
        """Whether the time budget is used up."""
        return self.settings.max_seconds is not None and self.progress.seconds >= self.settings.max_seconds

    def run(self, save: Callable[[], None]) -> None:
        """Trains to the end; calls `save` every `checkpoint_every` steps and after the last.

        Raises:
            Refused: NOT_FINITE, the loss overflowed.
        """
        self.network.train()
        started = time.monotonic() - self.progress.seconds
        with ThreadPoolExecutor(1) as ahead:
            future = ahead.submit(self.examples, self.progress.step)
            while not self.is_done:
                examples = future.result()
                future = ahead.submit(self.examples, self.progress.step + 1)
                self._step(examples, started)
                step = self.progress.step
                is_checkpoint = self.is_done or step % self.settings.checkpoint_every == 0
                if is_checkpoint or step % self.settings.log_every == 0:
                    self._record(is_checkpoint)
                if is_checkpoint:
                    save()

    def examples(self, step: int) -> list[Example]:
        """This worker's part of a step's batch."""
        epoch, parts, rows = self.order.batch(step)
        mine = slice(self.group.rank, None, self.group.world)
        return self.masker.examples(self.cells.take(parts[mine], rows[mine]), f"epoch {epoch}")

    def backward(self, examples: list[Example], hidden: float) -> Tensor:
        """Adds this worker's part of the gradient of a step's loss.

        Args:
            examples: this worker's part of the batch.
            hidden: hidden positions of the whole batch.

        Returns:
            (3,) summed squared errors of this worker's examples, 0 for an objective that is not on.
        """
        weights = torch.tensor(self.settings.weights, dtype=torch.float64, device=self.device)
        total = torch.zeros_like(weights)
        for example in examples:
            errors = objective_errors(self.network, example.to(self.device), self._is_on()).double().sum(dim=1)
            ((errors * weights).sum() / hidden).backward()  # type: ignore[no-untyped-call]
            total += errors.detach()
        return total

    def scores(self) -> NDArray[np.float64]:
        """(C, 6) of the validation cells, columns as in `pretrain_validation.SCORES`."""
        return self.validation.scores(self.network, self._is_on())

    def _is_on(self) -> Switches:
        return self.settings.is_on(self.progress.step)

    def _step(self, examples: list[Example], started: float) -> None:
        settings, progress = self.settings, self.progress
        clock = time.monotonic() - started if self.group.rank == 0 else 0.0
        counts = [float(sum(int(example.hidden.sum()) for example in examples)), clock]
        # Worker 0's clock rules: all must leave the loop after the same step.
        summed = self.group.sum(torch.tensor(counts, dtype=torch.float64, device=self.device))
        hidden, progress.seconds = summed.tolist()
        # Dropout takes no generator of its own. Keyed by step, so that a resumed run drops what it would have.
        torch.manual_seed(key64(settings.seed, f"dropout {progress.step} {self.group.rank}"))
        self.optimizer.zero_grad()
        self._errors += self.backward(examples, hidden)
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
        for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def _record(self, with_validation: bool) -> None:
        errors, step = self.group.sum(self._errors.clone()).cpu().numpy(), self.progress.step
        if not np.isfinite(errors).all():
            raise Refused(
                "NOT_FINITE", f"the loss is not finite around step {step}; a lower --lr or a longer --warmup helps"
            )
        record: Record = {
            "step": step,
            "epoch": step / self.order.batches_per_epoch,
            "seconds": self.progress.seconds,
            "lr": self.optimizer.param_groups[0]["lr"],
        }
        counted = zip(OBJECTIVES, errors, self._hidden, strict=True)
        record |= {name: float(error / hidden) for name, error, hidden in counted if hidden}
        if with_validation and self.validation.count:
            sums = self.validation.errors(self.network, self._is_on()).sum(axis=0)
            means = zip(OBJECTIVES, sums[1:] / sums[0], self._is_on(), strict=True)
            record |= {f"validation_{name}": float(mean) for name, mean, is_on in means if is_on}
        self._errors.zero_()
        self._hidden[:] = 0
        self.progress.history.append(record)
        if self.group.rank == 0:
            self.note(record)
