"""Classification as training sees it: batches of similar lengths, their loss, scores on validation rows.

The loss of a step is the cross entropy summed over the rows of its whole batch, divided by their number, for any number
of workers. Test rows are read in `outcome` alone, after the last step, with the weights that are kept.
"""

# Shapes: N rows of a part, B rows of a pass, K classes.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from xfm.compute.embed import batches
from xfm.core.parts import TEST, VALIDATION, Part
from xfm.core.tokenizer import Tokenizer, Tokens
from xfm.judging.eval_set import MISSING
from xfm.judging.labelled import codes_of
from xfm.metrics.classification import confusion_matrix, scores
from xfm.models.headed import HeadedBackbone
from xfm.nn.losses import class_loss
from xfm.training.gathered import all_gather_rows
from xfm.training.group import Group
from xfm.training.order import Order
from xfm.training.settings import VALIDATION as MEASURED
from xfm.training.settings import Record
from xfm.training.tokens import Rows, TokenParts

AT_ONCE = 8192  # rows of a part that are in memory together when they are scored
I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Example:
    """Rows that pass the network together.

    Attributes:
        tokens: of B rows.
        codes: (B,) int64, MISSING where a row has no class.
    """

    tokens: Tokens
    codes: Tensor


class ClassificationLearner:
    """One worker's share of classification; see `training.learner.Learner`.

    Args:
        network: trained in place.
        tokenizer: pads.
        rows: the tokens, in parts.
        order: which rows make up which batch.
        parts: how many rows each part has.
        label: column of the classes.
        classes: in the order of their codes.
        batch_tokens: of one pass, padding included.
        group: who else trains.
        device: of the network.
    """

    names = ("loss",)

    def __init__(
        self,
        network: HeadedBackbone,
        tokenizer: Tokenizer,
        rows: Rows,
        order: Order,
        parts: TokenParts,
        label: str,
        classes: Sequence[str],
        *,
        batch_tokens: int,
        group: Group,
        device: str,
    ) -> None:
        self.network, self.tokenizer, self.rows, self.order, self.parts = network, tokenizer, rows, order, parts
        self.label, self.classes = label, tuple(classes)
        self.batch_tokens, self.group, self.device = batch_tokens, group, device

    @property
    def steps_per_epoch(self) -> int:
        return self.order.batches_per_epoch

    def examples(self, step: int) -> list[Example]:
        _, parts, rows = self.order.share(step, self.group.rank, self.group.world)
        return [example for _, example in self._passes(self.rows.take(parts, rows))]

    def counts(self, examples: list[Example], step: int) -> list[float]:  # noqa: ARG002
        return [float(sum(int((example.codes != MISSING).sum()) for example in examples))]

    def backward(self, examples: list[Example], counts: Tensor, step: int) -> Tensor:  # noqa: ARG002
        total = torch.zeros(1, dtype=torch.float64, device=self.device)
        for example in examples:
            held = (example.codes != MISSING).to(self.device)
            logits = self.network(example.tokens.to(self.device))
            loss = class_loss(logits[held], example.codes.to(self.device)[held])
            (loss / counts[0].clamp(min=1)).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def validate(self, step: int) -> Record:  # noqa: ARG002
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

    def outcome(self, step: int) -> dict[str, Any]:  # noqa: ARG002
        """`validation` and `test`: (N, K) float32 logits of all rows of a part, in the order of the store."""
        return {part.word: self.logits(part)[0].numpy() for part in (VALIDATION, TEST)}

    def logits(self, part: Part) -> tuple[Tensor, Tensor]:
        """(N, K) float32 and (N,) codes of all rows of a part, on the CPU; workers share the work.

        Args:
            part: VALIDATION or TEST.
        """
        numbers, rows = self.parts.everything(part)
        mine = slice(self.group.rank, None, self.group.world)
        own_numbers, own_rows = numbers[mine], rows[mine]
        # One column more, for the codes: float32 holds them exactly.
        own = torch.zeros(len(own_rows), len(self.classes) + 1, device=self.device)
        was_training = self.network.training
        self.network.eval()
        with torch.inference_mode():
            for start in range(0, len(own_rows), AT_ONCE):
                some = slice(start, start + AT_ONCE)
                # `take` sorts by part and row, which is the order they have here.
                for places, example in self._passes(self.rows.take(own_numbers[some], own_rows[some])):
                    where = torch.from_numpy(start + places).to(self.device)
                    own[where, :-1] = self.network(example.tokens.to(self.device)).float()
                    own[where, -1] = example.codes.to(self.device).float()
        self.network.train(was_training)
        merged = all_gather_rows(self.group, own, len(rows)).cpu()
        return merged[:, :-1], merged[:, -1].long()

    def _passes(self, table: pa.Table) -> list[tuple[I64, Example]]:
        """Places in the table, and the rows there, padded."""
        codes = codes_of(table[self.label], self.classes)
        return [
            (places, Example(self.tokenizer.collate(table.take(places)), torch.from_numpy(codes[places])))
            for places in batches(self.tokenizer.lengths(table), self.batch_tokens)
        ]
