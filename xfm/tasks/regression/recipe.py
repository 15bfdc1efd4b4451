"""The recipe of a regression."""

from dataclasses import dataclass

from xfm.core.tokenizer import Tokenizer
from xfm.models.headed import HeadedBackbone
from xfm.tasks.regression.learner import RegressionLearner
from xfm.tasks.regression.rows import Scale
from xfm.training.group import Group
from xfm.training.headed_recipe import HeadedRecipe
from xfm.training.order import BucketOrder
from xfm.training.tokens import TokenStore


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
