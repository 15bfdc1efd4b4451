"""The recipe of classification."""

from dataclasses import dataclass

from xfm.core.tokenizer import Tokenizer
from xfm.models.headed import HeadedBackbone
from xfm.tasks.classification.learner import ClassificationLearner
from xfm.training.group import Group
from xfm.training.headed_recipe import HeadedRecipe
from xfm.training.order import BucketOrder
from xfm.training.tokens import TokenStore


@dataclass(frozen=True, slots=True)
class ClassificationRecipe(HeadedRecipe):
    """See `HeadedRecipe`."""

    classes: tuple[str, ...]  # in the order of their codes

    @property
    def n_outputs(self) -> int:
        """One a class."""
        return len(self.classes)

    def learner(
        self, network: HeadedBackbone, tokenizer: Tokenizer, store: TokenStore, order: BucketOrder, group: Group,
        device: str,
    ) -> ClassificationLearner:  # fmt: skip
        """Cross entropy over the classes."""
        return ClassificationLearner(
            network, tokenizer, store, order, self.parts, self.task.label, self.classes,
            batch_tokens=self.batch_tokens, group=group, device=device,
        )  # fmt: skip
