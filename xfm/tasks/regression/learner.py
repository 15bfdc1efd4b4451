"""Regression as training sees it: squared error of the standardised number, and scores on validation rows."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from xfm.judging.targets import numbers_of
from xfm.metrics.regression import regression_scores
from xfm.tasks.regression.rows import Scale
from xfm.training.headed_learner import HeadedLearner, HeadedRecipe


class RegressionLearner(HeadedLearner):
    """One worker's share of a regression; outputs are standardised numbers."""

    recipe: "RegressionRecipe"

    def truth_of(self, table: pa.Table) -> Tensor:
        """(B,) float32 standardised numbers, NaN where a row has none."""
        scale = self.recipe.scale
        return torch.from_numpy((numbers_of(table[self.recipe.task.label]) - scale.mean) / scale.deviation).float()

    def has_truth(self, truth: Tensor) -> Tensor:
        return truth.isfinite()

    def loss(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Summed squared error, in variances of the training rows."""
        return (outputs[:, 0] - truth).square().sum()

    def scores(self, outputs: Tensor, truth: Tensor) -> dict[str, float]:
        """Loss, R² and mean absolute error, in the unit of the column."""
        predicted, truth = outputs[:, 0].double(), truth.double()
        found = regression_scores(truth.numpy(), predicted.numpy())
        loss = float((predicted - truth).square().mean())
        return {"loss": loss, "r2": found["r2"], "mae": found["mae"] * self.recipe.scale.deviation}


@dataclass(frozen=True, slots=True)
class RegressionRecipe(HeadedRecipe):
    """See `HeadedRecipe`."""

    scale: Scale  # of the numbers

    learner = RegressionLearner

    @property
    def outputs(self) -> tuple[str, ...]:
        return (str(self.task.label),)

    @property
    def about(self) -> dict[str, Any]:
        return {"target": {"mean": self.scale.mean, "sd": self.scale.deviation}, "label": self.task.label}
