"""What training sees of a backbone with a head: batches of similar lengths, their loss, the outputs of held-out rows.

The loss of a step is summed over the rows of its whole batch that have a truth, and divided by their number, for any
number of workers. Test rows are read in `outcome` alone, after the last step, with the weights that are kept. The
recipe is what travels to every worker, whatever the head is to tell.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfm.compute.embed import batches, check_identity
from xfm.core.backbone import BackboneConfig
from xfm.core.parts import TEST, TRAIN, VALIDATION, Part
from xfm.core.schema import N_TOKENS
from xfm.core.tokenizer import Tokens
from xfm.models.headed import HeadedBackbone, freeze_unreached, put_head
from xfm.models.headed_checkpoint import write_headed
from xfm.training.group import Group, all_gather_rows
from xfm.training.learner import evaluating
from xfm.training.order import BucketOrder
from xfm.training.settings import Record, measured
from xfm.training.state import with_weights
from xfm.training.tokens import TokenParts, TokenStore

AT_ONCE = 8192  # rows of a part that are in memory together when they are scored
I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Example:
    """Rows that pass the network together."""

    tokens: Tokens  # of B rows
    truth: Tensor  # (B,) what is to be told of each, as `HeadedLearner.truth_of` gives it


class HeadedLearner(ABC):
    """One worker's share of what is learned with a head; see `training.learner.Learner`."""

    names = ("loss",)

    def __init__(self, recipe: "HeadedRecipe", rows: TokenStore, group: Group, device: str) -> None:
        self.recipe, self.rows, self.parts, self.group, self.device = recipe, rows, recipe.parts, group, device
        self.tokenizer = recipe.backbone.tokenizer(recipe.tokens_seed).for_training()
        lengths = [column.to_numpy() for column in rows.column(N_TOKENS)]
        self.order = BucketOrder(self.parts.count(TRAIN), recipe.batch_size, recipe.seed, lengths)
        network = recipe.network()
        numbers, places = self.parts.everything(TRAIN)
        freeze_unreached(network, self.tokenizer.collate(rows.take(numbers[:1], places[:1])))
        self.network = network.to(device)

    @abstractmethod
    def truth_of(self, table: pa.Table) -> Tensor:
        """(B,) numbers that float32 holds exactly, or to its precision."""

    @abstractmethod
    def has_truth(self, truth: Tensor) -> Tensor:
        """(B,) whether a row has one; others are not trained on."""

    @abstractmethod
    def loss(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Summed over (B, K) outputs and (B,) truths of rows that have one."""

    @abstractmethod
    def scores(self, outputs: Tensor, truth: Tensor) -> dict[str, float]:
        """Of (N, K) outputs and (N,) truths, the loss among them."""

    @property
    def steps_per_epoch(self) -> int:
        return self.order.batches_per_epoch

    def examples(self, step: int) -> list[Example]:
        _, parts, rows = self.order.share(step, self.group.rank, self.group.world)
        return [example for _, example in self._passes(self.rows.take(parts, rows))]

    def counts(self, examples: list[Example], step: int) -> list[float]:  # noqa: ARG002
        """Rows that have a truth."""
        return [float(sum(int(self.has_truth(example.truth).sum()) for example in examples))]

    def backward(self, examples: list[Example], counts: Tensor, step: int) -> Tensor:  # noqa: ARG002
        """(1,) summed loss of this worker's examples."""
        total = torch.zeros(1, dtype=torch.float64, device=self.device)
        for example in examples:
            held, truth = self.has_truth(example.truth).to(self.device), example.truth.to(self.device)
            outputs = self.network(example.tokens.to(self.device))
            loss = self.loss(outputs[held], truth[held])
            (loss / counts[0].clamp(min=1)).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def validate(self, step: int) -> Record:  # noqa: ARG002
        """Loss and scores on all validation rows that have a truth; nothing where there are none."""
        outputs, truth = self.outputs(VALIDATION)
        held = self.has_truth(truth)
        return measured(self.scores(outputs[held], truth[held])) if held.any() else {}

    def outcome(self, step: int) -> dict[str, Any]:  # noqa: ARG002
        """`validation` and `test`: (N, K) float32 outputs of all rows of a part, in the order of the store."""
        return {part.word: self.outputs(part)[0].numpy() for part in (VALIDATION, TEST)}

    def outputs(self, part: Part) -> tuple[Tensor, Tensor]:
        """(N, K) float32 and (N,) float32 truths of all rows of a part, on the CPU; workers share the work."""
        numbers, rows = self.parts.everything(part)
        mine = slice(self.group.rank, None, self.group.world)
        own_numbers, own_rows = numbers[mine], rows[mine]
        # One column more, for the truths.
        own = torch.zeros(len(own_rows), len(self.recipe.outputs) + 1, device=self.device)
        with evaluating(self.network):
            for start in range(0, len(own_rows), AT_ONCE):
                some = slice(start, start + AT_ONCE)
                # `take` sorts by part and row, which is the order they have here.
                for places, example in self._passes(self.rows.take(own_numbers[some], own_rows[some])):
                    where = torch.from_numpy(start + places).to(self.device)
                    own[where, :-1] = self.network(example.tokens.to(self.device)).float()
                    own[where, -1] = example.truth.to(self.device).float()
        merged = all_gather_rows(self.group, own, len(rows)).cpu()
        return merged[:, :-1], merged[:, -1]

    def _passes(self, table: pa.Table) -> list[tuple[I64, Example]]:
        """Places in the table, and the rows there, padded."""
        truth = self.truth_of(table)
        return [
            (places, Example(self.tokenizer.collate(table.take(places)), truth[torch.from_numpy(places)]))
            for places in batches(self.tokenizer.lengths(table), self.recipe.batch_tokens)
        ]


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
    def learner(self) -> type[HeadedLearner]:
        """What each worker learns with."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """What each output of the head is called."""

    @property
    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What the outputs are, as head.json says it: label, and classes or target."""

    def build(self, group: Group, device: str) -> HeadedLearner:
        """Reads vocabulary and weights.

        Raises:
            Refused: the weights, or what is to be trained of them, cannot be used.
            EnvironmentProblem: another copy of the checkpoint.
        """
        check_identity(self.backbone, self.identity)
        return self.learner(self, TokenStore(self.parts), group, device)

    def network(self) -> HeadedBackbone:
        """At step 0, on the CPU: the same on every worker and machine."""
        return put_head(self.backbone.build("cpu"), self.task, len(self.outputs), self.seed)

    def trained(self, weights: dict[str, Any]) -> HeadedBackbone:
        """With the weights of `Trained`, in evaluation mode."""
        return with_weights(self.network(), weights).eval()

    def write(self, folder: Path, network: HeadedBackbone, training: Mapping[str, Any]) -> None:
        """The files of a trained network, see `write_headed`."""
        write_headed(
            folder, network, self.backbone, self.task, self.outputs, seed=self.seed, about=self.about,
            training=training,
        )  # fmt: skip
