"""Training in one process or several: plain PyTorch, deterministic, resumable at any checkpoint.

Gradients are summed over workers, not averaged over their means: the loss of a step is that of its whole batch, for any
number of workers. Batches, masks and crops are keyed by row and epoch, dropout by step and worker, so that nothing but
weights, optimiser and progress has to be saved.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from xfm.core.errors import Refused
from xfm.core.random import key64
from xfm.training.group import Group
from xfm.training.learner import Learner
from xfm.training.settings import Progress, Record, Settings, Trained
from xfm.training.state import trained_tensors


class Trainer:
    """One worker's share of a training run. Every worker makes the same calls.

    The network of the learner is trained in place; `note` is called on worker 0 with every new record.
    """

    def __init__(
        self,
        learner: Learner,
        settings: Settings,
        *,
        group: Group | None = None,
        device: str = "cpu",
        note: Callable[[Record], None] = lambda _: None,
    ) -> None:
        self.learner, self.settings = learner, settings
        self.group, self.device, self.note = group or Group(), device, note
        self.parameters = [p for p in learner.network.parameters() if p.requires_grad]
        # Biases, the weights of norms and single numbers are no matrices.
        kinds = [p for p in self.parameters if p.ndim > 1], [p for p in self.parameters if p.ndim < 2]
        groups = [
            {"params": parameters, "weight_decay": decay}
            for parameters, decay in zip(kinds, (settings.weight_decay, 0.0), strict=True)
            if parameters
        ]
        self.optimizer = torch.optim.AdamW(groups, settings.lr, fused=True)
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}
        # Since the last record: this worker's summed losses, and what they are to be divided by, over all workers.
        self._losses = torch.zeros(len(learner.names), dtype=torch.float64, device=device)
        self._counts = torch.zeros_like(self._losses)

    @property
    def is_done(self) -> bool:
        """All steps done, out of time, or out of patience."""
        return self.progress.step >= self.settings.steps or self.is_out_of_time or self.is_stopped

    @property
    def is_out_of_time(self) -> bool:
        """Whether the time budget is used up."""
        return self.settings.max_seconds is not None and self.progress.seconds >= self.settings.max_seconds

    @property
    def is_stopped(self) -> bool:
        """Whether the last `patience` validations brought nothing better."""
        if self.settings.patience is None:
            return False
        later = [record for record in self.progress.history if record["step"] > self.progress.best_step]
        return sum(self.settings.merit(record) is not None for record in later) >= self.settings.patience

    def run(self, save: Callable[[], None]) -> Trained:
        """Trains to the end; calls `save` every `checkpoint_every` steps and after the last.

        Returns:
            The weights that are kept, which the network then has, and what the learner says of them.

        Raises:
            Refused: NOT_FINITE, the loss overflowed; NO_VALIDATION, nothing was measured that could be watched.
        """
        self.learner.network.train()
        started = time.monotonic() - self.progress.seconds
        with ThreadPoolExecutor(1) as ahead:
            future = ahead.submit(self.learner.examples, self.progress.step)
            while not self.is_done:
                examples = future.result()
                future = ahead.submit(self.learner.examples, self.progress.step + 1)
                self._step(examples, started)
                step = self.progress.step
                is_checkpoint = (
                    step >= self.settings.steps or self.is_out_of_time or step % self.settings.checkpoint_every == 0
                )
                if is_checkpoint or step % self.settings.log_every == 0:
                    self._record(is_checkpoint)
                if is_checkpoint:
                    save()
        progress = self.progress
        if self.best:
            self.learner.network.load_state_dict(self.best, strict=False)
        return Trained(
            weights=trained_tensors(self.learner.network),
            steps=progress.step,
            seconds=progress.seconds,
            best_step=progress.best_step or progress.step,
            history=progress.history,
            outcome=self.learner.outcome(progress.best_step or progress.step),
            is_out_of_time=self.is_out_of_time and progress.step < self.settings.steps,
            is_stopped=self.is_stopped and progress.step < self.settings.steps,
        )

    def _step(self, examples: object, started: float) -> None:
        settings, progress, learner = self.settings, self.progress, self.learner
        clock = time.monotonic() - started if self.group.rank == 0 else 0.0
        # Worker 0's clock rules: all must leave the loop after the same step.
        own = torch.tensor([*learner.counts(examples, progress.step), clock], dtype=torch.float64, device=self.device)
        summed = self.group.sum(own)
        counts, progress.seconds = summed[:-1], float(summed[-1])
        # Dropout takes no generator of its own. Keyed by step, so that a resumed run drops what it would have.
        torch.manual_seed(key64(settings.seed, f"dropout {progress.step} {self.group.rank}"))
        self.optimizer.zero_grad()
        self._losses += learner.backward(examples, counts, progress.step)
        self._counts += counts
        self._sum_gradients()
        torch.nn.utils.clip_grad_norm_(self.parameters, settings.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr_at(progress.step, progress.seconds)
        self.optimizer.step()
        progress.step += 1

    def _sum_gradients(self) -> None:
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.group.world == 1:
            return
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        flat = self.group.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def _record(self, with_validation: bool) -> None:
        losses, step = self.group.sum(self._losses.clone()).cpu().numpy(), self.progress.step
        if not np.isfinite(losses).all():
            raise Refused(
                "NOT_FINITE", f"the loss is not finite around step {step}; a lower --lr or a longer --warmup helps"
            )
        record: Record = {
            "step": step,
            "epoch": step / self.learner.steps_per_epoch,
            "seconds": self.progress.seconds,
            "lr": self.optimizer.param_groups[0]["lr"],
        }
        counted = zip(self.learner.names, losses, self._counts.tolist(), strict=True)
        record |= {name: float(loss / count) for name, loss, count in counted if count}
        if with_validation:
            record |= self.learner.validate(step)
            self._keep_best(record)
        self._losses.zero_()
        self._counts.zero_()
        self.progress.history.append(record)
        if self.group.rank == 0:
            self.note(record)

    def _keep_best(self, record: Record) -> None:
        if not self.settings.watch:
            return
        merit = self.settings.merit(record)
        if merit is None or not np.isfinite(merit):
            measured = ", ".join(name for name in record if name.startswith("validation_")) or "nothing"
            raise Refused(
                "NO_VALIDATION",
                f"{self.settings.watch.removeprefix('-')} says which weights are kept, and validation gave {measured}",
            )
        before = [self.settings.merit(each) for each in self.progress.history]
        if all(each is None or merit > each for each in before):
            self.progress.best_step = int(record["step"])
            self.best = {name: tensor.clone() for name, tensor in trained_tensors(self.learner.network).items()}
