"""The recipe of the adversarial classifier: what travels to every worker, the bank of words included."""

from dataclasses import dataclass
from typing import Any, Protocol

from xfm.compute.embed import check_identity
from xfm.core.backbone import BackboneConfig
from xfm.core.parts import TRAIN
from xfm.models.fusion.label_embeddings import TextBank
from xfm.models.fusion.network import FusionModel
from xfm.tasks.adversarial.learner import AdversarialLearner, Columns
from xfm.tasks.adversarial.network import AdversarialClassifier, Network, freeze_unread
from xfm.tasks.adversarial.settings import AdversarialClassification
from xfm.training.group import Group
from xfm.training.order import Order
from xfm.training.state import with_weights
from xfm.training.tokens import TokenParts, TokenStore


class FusionRecipe(BackboneConfig, Protocol):
    """What of a fusion's recipe is used."""

    @property
    def hidden(self) -> int:
        """Width of the head, where the task names none."""
        ...

    def start(self, gene_dim: int, bank: TextBank, seed: int) -> Network:
        """The network at step 0."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class AdversarialRecipe:
    """The adversarial classifier, as it travels to every worker."""

    backbone: FusionRecipe  # a fusion, from scratch or aligned
    task: AdversarialClassification  # what is learned and unlearned
    columns: Columns  # of the rows, and their classes
    bank: TextBank  # vectors of all words, made once
    gene_dim: int  # numbers of an embedding
    parts: TokenParts  # the rows
    batch_size: int  # rows of a step, over all workers
    steps: int  # of the whole run
    seed: int  # keys order, network from scratch, head and adversary
    identity: dict[str, Any]  # what `backbone` must find; another copy of a checkpoint is refused

    def build(self, group: Group, device: str) -> AdversarialLearner:
        """Draws or reads the weights.

        Raises:
            Refused: OTHER_WIDTH, or the weights cannot be used.
            EnvironmentProblem: another copy of the checkpoint.
        """
        check_identity(self.backbone, self.identity)
        store, network = TokenStore(self.parts), self.network()
        numbers, rows = self.parts.everything(TRAIN)
        freeze_unread(network, self.columns.cells(store.take(numbers[:1], rows[:1]), self.bank))
        return AdversarialLearner(
            network.to(device), self.task, self.bank, self.columns, store,
            Order(self.parts.count(TRAIN), self.batch_size, self.seed), self.parts, steps=self.steps, seed=self.seed,
            group=group, device=device,
        )  # fmt: skip

    def network(self) -> AdversarialClassifier:
        """At step 0, on the CPU: the same on every worker and machine."""
        network = self.backbone.start(self.gene_dim, self.bank, self.seed)
        # A checkpoint's sizes count, not those that the config states beside it.
        hidden = network.sizes.hidden if isinstance(network, FusionModel) else self.backbone.hidden
        return AdversarialClassifier(
            network, self.bank, self.task, len(self.columns.classes), len(self.columns.attributes),
            self.task.head_hidden or hidden, self.seed,
        )  # fmt: skip

    def trained(self, weights: dict[str, Any]) -> AdversarialClassifier:
        """With the weights of `Trained`, in evaluation mode."""
        return with_weights(self.network(), weights).eval()
