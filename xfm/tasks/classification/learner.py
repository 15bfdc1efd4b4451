"""Classification as training sees it: cross entropy, and scores on validation rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional

from xfm.core.parts import VALIDATION, Part
from xfm.core.tokenizer import Tokenizer
from xfm.judging.eval_set import MISSING
from xfm.judging.labelled import codes_of
from xfm.metrics.classification import confusion_matrix, scores
from xfm.models.headed import HeadedBackbone
from xfm.nn.losses import class_loss
from xfm.training.group import Group
from xfm.training.headed_learner import HeadedLearner, HeadedRecipe
from xfm.training.order import BucketOrder, Order
from xfm.training.settings import VALIDATION as MEASURED
from xfm.training.settings import Record
from xfm.training.tokens import RowReader, TokenParts, TokenStore


class ClassificationLearner(HeadedLearner):
    """One worker's share of classification; arguments as for `HeadedLearner`, and:

    Args:
        label: column of the classes.
        classes: in the order of their codes.
    """

    def __init__(
        self,
        network: HeadedBackbone,
        tokenizer: Tokenizer,
        rows: RowReader,
        order: Order,
        parts: TokenParts,
        label: str,
        classes: Sequence[str],
        *,
        batch_tokens: int,
        group: Group,
        device: str,
    ) -> None:
        super().__init__(
            network, tokenizer, rows, order, parts, len(classes), batch_tokens=batch_tokens, group=group, device=device
        )
        self.label, self.classes = label, tuple(classes)

    def truth_of(self, table: pa.Table) -> Tensor:
        """(B,) int64 codes, MISSING where a row has no class."""
        return torch.from_numpy(codes_of(table[self.label], self.classes))

    def has_truth(self, truth: Tensor) -> Tensor:
        """(B,) whether a row has a class."""
        return truth != MISSING

    def loss(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Summed cross entropy, in nats."""
        return class_loss(outputs, truth)

    def validate(self, step: int) -> Record:  # noqa: ARG002
        """Loss and scores on all validation rows that have a class; nothing where there are none."""
        logits, codes = self.logits(VALIDATION)
        held = codes != MISSING
        if not held.any():
            return {}
        logits, codes = logits[held].double(), codes[held]
        n_classes, truth = len(self.classes), codes.numpy()
        found = scores(confusion_matrix(truth, logits.argmax(dim=1).numpy(), n_classes))
        record = {"loss": float(functional.cross_entropy(logits, codes))} | {
            name: float(value) for name, value in found.items()
        }
        return {f"{MEASURED}{name}": value for name, value in record.items()}

    def logits(self, part: Part) -> tuple[Tensor, Tensor]:
        """(N, K) float32 and (N,) int64 codes of all rows of a part; float32 holds codes exactly."""
        outputs, codes = self.outputs(part)
        return outputs, codes.long()


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
