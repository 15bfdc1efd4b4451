"""The recipe of a regression: what travels to every worker."""

from dataclasses import dataclass
from typing import Any

from xfm.compute.embed import check_identity
from xfm.core.backbone import BackboneConfig
from xfm.core.parts import TRAIN
from xfm.core.schema import N_TOKENS
from xfm.models.headed import HeadedBackbone, freeze_unreached, put_head
from xfm.tasks.regression.learner import RegressionLearner
from xfm.tasks.regression.rows import Scale
from xfm.tasks.regression.settings import Regression
from xfm.training.group import Group
from xfm.training.order import BucketOrder
from xfm.training.state import with_weights
from xfm.training.tokens import TokenParts, TokenStore


@dataclass(frozen=True, slots=True)
class RegressionRecipe:
    """Network and head, as they travel to every worker.

    Attributes:
        backbone: of the network at step 0.
        task: what is learned and what is trained.
        scale: of the numbers.
        parts: the tokens.
        batch_size: rows of a step, over all workers.
        batch_tokens: of one pass, padding included.
        seed: keys order, head and updates.
        tokens_seed: that the tokens were made with.
        identity: what `backbone` must find; another copy of a checkpoint is refused.
    """

    backbone: BackboneConfig
    task: Regression
    scale: Scale
    parts: TokenParts
    batch_size: int
    batch_tokens: int
    seed: int
    tokens_seed: int
    identity: dict[str, Any]

    def build(self, group: Group, device: str) -> RegressionLearner:
        """Reads vocabulary and weights.

        Raises:
            Refused: the weights, or what is to be trained of them, cannot be used.
            EnvironmentProblem: another copy of the checkpoint.
        """
        check_identity(self.backbone, self.identity)
        store, tokenizer = TokenStore(self.parts), self.backbone.tokenizer(self.tokens_seed).for_training()
        lengths = [column.to_numpy() for column in store.column(N_TOKENS)]
        order = BucketOrder(self.parts.count(TRAIN), self.batch_size, self.seed, lengths)
        network = self.network()
        numbers, rows = self.parts.everything(TRAIN)
        freeze_unreached(network, tokenizer.collate(store.take(numbers[:1], rows[:1])))
        return RegressionLearner(
            network.to(device), tokenizer, store, order, self.parts, self.task.label, self.scale,
            batch_tokens=self.batch_tokens, group=group, device=device,
        )  # fmt: skip

    def network(self) -> HeadedBackbone:
        """At step 0, on the CPU: the same on every worker and machine."""
        return put_head(self.backbone.build("cpu"), self.task, 1, self.seed)

    def trained(self, weights: dict[str, Any]) -> HeadedBackbone:
        """With the weights of `Trained`, in evaluation mode."""
        return with_weights(self.network(), weights).eval()
