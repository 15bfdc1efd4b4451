"""The recipe of a backbone with a head: what travels to every worker, whatever the head is to tell."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from xfm.compute.embed import check_identity
from xfm.core.backbone import BackboneConfig
from xfm.core.parts import TRAIN
from xfm.core.schema import N_TOKENS
from xfm.core.tokenizer import Tokenizer
from xfm.models.headed import HeadedBackbone, freeze_unreached, put_head
from xfm.training.group import Group
from xfm.training.headed_learner import HeadedLearner
from xfm.training.order import BucketOrder
from xfm.training.state import with_weights
from xfm.training.tokens import TokenParts, TokenStore


@dataclass(frozen=True, slots=True)
class HeadedRecipe(ABC):
    """See `training.learner.Recipe`."""

    backbone: BackboneConfig  # of the network at step 0
    task: Any  # settings, `models.head_settings.HeadSettings` with the column `label`
    parts: TokenParts  # the tokens
    batch_size: int  # rows of a step, over all workers
    batch_tokens: int  # of one pass, padding included
    seed: int  # keys order, head and updates
    tokens_seed: int  # that the tokens were made with
    identity: dict[str, Any]  # what `backbone` must find; another copy of a checkpoint is refused

    @property
    @abstractmethod
    def n_outputs(self) -> int:
        """Of the head."""

    @abstractmethod
    def learner(
        self, network: HeadedBackbone, tokenizer: Tokenizer, store: TokenStore, order: BucketOrder, group: Group,
        device: str,
    ) -> HeadedLearner:  # fmt: skip
        """One worker's share, of a network that is on its device."""

    def build(self, group: Group, device: str) -> HeadedLearner:
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
        return self.learner(network.to(device), tokenizer, store, order, group, device)

    def network(self) -> HeadedBackbone:
        """At step 0, on the CPU: the same on every worker and machine."""
        return put_head(self.backbone.build("cpu"), self.task, self.n_outputs, self.seed)

    def trained(self, weights: dict[str, Any]) -> HeadedBackbone:
        """With the weights of `Trained`, in evaluation mode."""
        return with_weights(self.network(), weights).eval()
