"""Regression as training sees it: squared error of the standardised number, and scores on validation rows."""

from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import Tensor

from xfm.core.parts import VALIDATION
from xfm.core.tokenizer import Tokenizer
from xfm.judging.targets import numbers_of
from xfm.metrics.regression import regression_scores
from xfm.models.headed import HeadedBackbone
from xfm.tasks.regression.rows import Scale
from xfm.training.group import Group
from xfm.training.headed_learner import HeadedLearner, HeadedRecipe
from xfm.training.order import BucketOrder, Order
from xfm.training.settings import VALIDATION as MEASURED
from xfm.training.settings import Record
from xfm.training.tokens import RowReader, TokenParts, TokenStore


class RegressionLearner(HeadedLearner):
    """One worker's share of a regression; arguments as for `HeadedLearner`, and:

    Args:
        label: column of the numbers.
        scale: of the numbers; outputs are standardised.
    """

    def __init__(
        self,
        network: HeadedBackbone,
        tokenizer: Tokenizer,
        rows: RowReader,
        order: Order,
        parts: TokenParts,
        label: str,
        scale: Scale,
        *,
        batch_tokens: int,
        group: Group,
        device: str,
    ) -> None:
        super().__init__(
            network, tokenizer, rows, order, parts, 1, batch_tokens=batch_tokens, group=group, device=device
        )
        self.label, self.scale = label, scale

    def truth_of(self, table: pa.Table) -> Tensor:
        """(B,) float32 standardised numbers, NaN where a row has none."""
        standardised = (numbers_of(table[self.label]) - self.scale.mean) / self.scale.deviation
        return torch.from_numpy(standardised).float()

    def has_truth(self, truth: Tensor) -> Tensor:
        """(B,) whether a row has a number."""
        return truth.isfinite()

    def loss(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Summed squared error, in variances of the training rows."""
        return (outputs[:, 0] - truth).square().sum()

    def validate(self, step: int) -> Record:  # noqa: ARG002
        """Loss, R² and mean absolute error (in the unit of the column) on all validation rows that have a number."""
        outputs, truth = self.outputs(VALIDATION)
        held = self.has_truth(truth)
        if not held.any():
            return {}
        predicted, truth = outputs[held, 0].double(), truth[held].double()
        found = regression_scores(truth.numpy(), predicted.numpy())
        record = {
            "loss": float((predicted - truth).square().mean()), "r2": found["r2"],
            "mae": found["mae"] * self.scale.deviation,
        }  # fmt: skip
        return {f"{MEASURED}{name}": value for name, value in record.items()}


@dataclass(frozen=True, slots=True)
class RegressionRecipe(HeadedRecipe):
    """See `HeadedRecipe`."""

    scale: Scale  # of the numbers

    @property
    def n_outputs(self) -> int:
        """The standardised number."""
        return 1

    def learner(
        self, network: HeadedBackbone, tokenizer: Tokenizer, store: TokenStore, order: BucketOrder, group: Group,
        device: str,
    ) -> RegressionLearner:  # fmt: skip
        """Squared error of the standardised number."""
        return RegressionLearner(
            network, tokenizer, store, order, self.parts, self.task.label, self.scale,
            batch_tokens=self.batch_tokens, group=group, device=device,
        )  # fmt: skip
