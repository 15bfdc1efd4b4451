"""The recipe of classification: what travels to every worker."""

from dataclasses import dataclass
from typing import Any

from xfm.compute.embed import check_identity
from xfm.core.backbone import BackboneConfig
from xfm.core.parts import TRAIN
from xfm.core.schema import N_TOKENS
from xfm.models.headed import HeadedBackbone, freeze_unreached, put_head
from xfm.tasks.classification.learner import ClassificationLearner
from xfm.tasks.classification.settings import Classification
from xfm.training.group import Group
from xfm.training.order import BucketOrder
from xfm.training.state import with_weights
from xfm.training.tokens import TokenParts, TokenStore


@dataclass(frozen=True, slots=True)
class ClassificationRecipe:
    """Network and head, as they travel to every worker.

    Attributes:
        backbone: of the network at step 0.
        task: what is learned and what is trained.
        classes: in the order of their codes.
        parts: the tokens.
        batch_size: rows of a step, over all workers.
        batch_tokens: of one pass, padding included.
        seed: keys order, head and updates.
        tokens_seed: that the tokens were made with.
        identity: what `backbone` must find; another copy of a checkpoint is refused.
    """

    backbone: BackboneConfig
    task: Classification
    classes: tuple[str, ...]
    parts: TokenParts
    batch_size: int
    batch_tokens: int
    seed: int
    tokens_seed: int
    identity: dict[str, Any]

    def build(self, group: Group, device: str) -> ClassificationLearner:
        """Reads vocabulary and weights.

        Raises:
            Refused: the weights, or what is to be trained of them, cannot be used.
            EnvironmentProblem: another copy of the checkpoint.
        """
        check_identity(self.backbone, self.identity)
        store, tokenizer = TokenStore(self.parts), self.backbone.tokenizer(self.tokens_seed).for_training()
        order = BucketOrder(
            self.parts.count(TRAIN), self.batch_size, self.seed,
            [column.to_numpy() for column in store.column(N_TOKENS)],
        )  # fmt: skip
        network = self.network()
        numbers, rows = self.parts.everything(TRAIN)
        freeze_unreached(network, tokenizer.collate(store.take(numbers[:1], rows[:1])))
        return ClassificationLearner(
            network.to(device), tokenizer, store, order, self.parts, self.task.label, self.classes,
            batch_tokens=self.batch_tokens, group=group, device=device,
        )  # fmt: skip

    def network(self) -> HeadedBackbone:
        """At step 0, on the CPU: the same on every worker and machine."""
        return put_head(self.backbone.build("cpu"), self.task, len(self.classes), self.seed)

    def trained(self, weights: dict[str, Any]) -> HeadedBackbone:
        """With the weights of `Trained`, in evaluation mode."""
        return with_weights(self.network(), weights).eval()
