"""Classification as training sees it: cross entropy, and scores on validation rows."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional

from xfm.core.parts import Part
from xfm.judging.eval_set import MISSING
from xfm.judging.labelled import codes_of
from xfm.nn.losses import class_loss
from xfm.training.headed_learner import HeadedLearner, HeadedRecipe
from xfm.training.learner import class_scores


class ClassificationLearner(HeadedLearner):
    """One worker's share of classification."""

    recipe: "ClassificationRecipe"

    def truth_of(self, table: pa.Table) -> Tensor:
        """(B,) int64 codes, MISSING where a row has no class."""
        return torch.from_numpy(codes_of(table[self.recipe.task.label], self.recipe.classes))

    def has_truth(self, truth: Tensor) -> Tensor:
        return truth != MISSING

    def loss(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Summed cross entropy, in nats."""
        return class_loss(outputs, truth)

    def scores(self, outputs: Tensor, truth: Tensor) -> dict[str, float]:
        codes = truth.long()
        return class_scores(outputs, codes, float(functional.cross_entropy(outputs.double(), codes)))

    def logits(self, part: Part) -> tuple[Tensor, Tensor]:
        """(N, K) float32 and (N,) int64 codes of all rows of a part; float32 holds codes exactly."""
        outputs, codes = self.outputs(part)
        return outputs, codes.long()


@dataclass(frozen=True, slots=True)
class ClassificationRecipe(HeadedRecipe):
    """See `HeadedRecipe`."""

    classes: tuple[str, ...]  # in the order of their codes

    learner = ClassificationLearner

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.classes

    @property
    def about(self) -> dict[str, Any]:
        return {"classes": list(self.classes), "label": self.task.label}
