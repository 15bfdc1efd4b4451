"""What a training loop must know of what is learned: batches, gradients, validation.

The loop itself (`trainer.py`) knows nothing of cells, texts or pictures, and a learner nothing of optimisers,
schedules, checkpoints or workers that die.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from xfm.metrics.classification import confusion_matrix, scores
from xfm.training.group import Group
from xfm.training.settings import Record


class Learner(Protocol):
    """One worker's share of what is learned. Every worker makes the same calls in the same order."""

    @property
    def network(self) -> nn.Module:
        """Parameters with `requires_grad` are trained and saved. Its `train()` leaves frozen parts as they must be."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the K losses, as the curves are called."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one pass over the training rows."""

    def examples(self, step: int) -> Any:
        """This worker's part of the batch of a step. Runs in a thread, one step ahead, and draws by keys only."""

    def counts(self, examples: Any, step: int) -> Sequence[float]:
        """(K,) how many things of this worker's part each loss is a mean over, e.g. rows; 0 for one that is not on."""

    def backward(self, examples: Any, counts: Tensor, step: int) -> Tensor:
        """Adds this worker's part of the gradient of the batch's loss, so that the sum over workers is the whole.

        Args:
            counts: (K,) float64, those of all workers added up.

        Returns:
            (K,) float64, detached: the summed losses of this worker's part.
        """

    def validate(self, step: int) -> Record:
        """Scores on validation rows after `step` steps, the same on every worker; names begin with "validation_"."""

    def outcome(self, step: int) -> dict[str, Any]:
        """What the run says at its end, with the weights that are kept. The only place where test rows are read."""


class Recipe(Protocol):
    """A frozen recipe of a learner: it travels to every worker."""

    def build(self, group: Group, device: str) -> Learner:
        """Opens files and weights in the process that uses them.

        Raises:
            Refused: the data or the weights cannot be used.
            EnvironmentProblem: this machine's copy of a checkpoint is another one.
        """


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode and without gradients, and then as it was."""
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        network.train(was_training)


def class_scores(logits: Tensor, codes: Tensor, loss: float) -> dict[str, float]:
    """The loss and the scores of a classifier from (N, K) logits and (N,) codes of rows that have a class."""
    truth, guesses = (each.cpu().numpy() for each in (codes, logits.argmax(dim=1)))
    found = scores(confusion_matrix(truth, guesses, logits.shape[1]))
    return {"loss": loss} | {name: float(value) for name, value in found.items()}
