"""What a pretraining run of scGPT learns: masked expression and generation by cell prompt.

The loss of a step is divided by the hidden positions of its whole batch, for any number of workers.
"""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xfm.compute.embed import check_identity
from xfm.core.errors import Refused
from xfm.core.parts import TRAIN
from xfm.core.random import key64
from xfm.models.scgpt.config import ScGPT
from xfm.models.scgpt.fresh import FreshScGPT
from xfm.models.scgpt.network import ScGPTBackbone
from xfm.tasks.masked_expression.masker import Masker
from xfm.tasks.masked_expression.settings import OBJECTIVES, Example, Objectives, objective_errors
from xfm.tasks.masked_expression.validation import Validation
from xfm.training.group import Group
from xfm.training.order import Order
from xfm.training.settings import Record, measured
from xfm.training.tokens import RowReader, TokenParts, TokenStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MaskedExpressionRecipe:
    """The recipe of a learner."""

    backbone: ScGPT | FreshScGPT  # of the network at step 0
    parts: TokenParts  # the tokens
    objectives: Objectives  # what counts how much
    mask_fractions: tuple[float, ...]  # of a cell's genes, one drawn for each cell and epoch
    batch_size: int  # cells of a step, over all workers
    batch_tokens: int  # of one pass, padding included
    validation_cells: int  # scored at most
    seed: int  # keys masks, order and initial weights
    identity: dict[str, Any]  # what `backbone` must find; another copy of a checkpoint is refused

    def build(self, group: Group, device: str) -> "MaskedExpressionLearner":
        """Reads vocabulary and weights.

        Raises:
            Refused: the weights cannot be trained further.
            EnvironmentProblem: another copy of the checkpoint.
        """
        check_identity(self.backbone, self.identity)
        return MaskedExpressionLearner(self, TokenStore(self.parts), group, device)


def network_to_train(backbone: ScGPT | FreshScGPT, device: str, seed: int) -> ScGPTBackbone:
    """Builds the network; heads that a checkpoint lacks get initial weights drawn from the seed.

    Raises:
        Refused: NEEDS_LABELS; the checkpoint is conditioned on batch labels, which pretraining has none of.
    """
    network = backbone.build("cpu")
    found = network.architecture
    if found.label_encoder or found.input_norm == "dsbn":
        raise Refused(
            "NEEDS_LABELS",
            f"the checkpoint is conditioned on {found.n_labels} batch labels; pretraining starts from one without them",
        )
    wanted = found.model_copy(update={"decoder": True, "mvc": "inner product" if found.mvc == "none" else found.mvc})
    if wanted == found:
        return network.to(device)
    tokenizer = backbone.tokenizer(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key64(seed, "heads"))
        whole = ScGPTBackbone(wanted, pad_id=tokenizer.pad_id)
    missing = whole.load_state_dict(network.state_dict(), strict=False).missing_keys
    heads = sorted({name.split(".")[0] for name in missing})
    logger.warning("the checkpoint lacks %s: trained from scratch", ", ".join(heads))
    return whole.to(device)


class MaskedExpressionLearner:
    """One worker's share of masked expression; see `training.learner.Learner`."""

    names = OBJECTIVES

    def __init__(self, recipe: MaskedExpressionRecipe, cells: RowReader, group: Group, device: str) -> None:
        self.cells, self.group, self.device, self.objectives = cells, group, device, recipe.objectives
        self.network = network_to_train(recipe.backbone, device, recipe.seed)
        self.masker = Masker(
            recipe.backbone.tokenizer(recipe.seed), self.network.architecture.mask_value, recipe.mask_fractions,
            recipe.batch_tokens, recipe.seed,
        )  # fmt: skip
        self.order = Order(recipe.parts.count(TRAIN), recipe.batch_size, recipe.seed)
        self.validation = Validation(
            self.masker,
            cells,
            recipe.parts,
            limit=recipe.validation_cells,
            seed=recipe.seed,
            group=group,
            device=device,
        )

    @property
    def steps_per_epoch(self) -> int:
        return self.order.batches_per_epoch

    def examples(self, step: int) -> list[Example]:
        epoch, parts, rows = self.order.share(step, self.group.rank, self.group.world)
        return self.masker.examples(self.cells.take(parts, rows), f"epoch {epoch}")

    def counts(self, examples: list[Example], step: int) -> list[float]:
        """Hidden positions, for each objective that is on."""
        hidden = float(sum(int(example.hidden.sum()) for example in examples))
        return [hidden * is_on for is_on in self.objectives.is_on(step)]

    def backward(self, examples: list[Example], counts: Tensor, step: int) -> Tensor:
        """(3,) summed squared errors of this worker's examples, 0 for an objective that is not on."""
        weights = torch.tensor(self.objectives.weights, dtype=torch.float64, device=self.device)
        total, is_on = torch.zeros_like(weights), self.objectives.is_on(step)
        for example in examples:
            errors = objective_errors(self.network, example.to(self.device), is_on).double().sum(dim=1)
            ((errors * weights).sum() / counts.max()).backward()  # type: ignore[no-untyped-call]
            total += errors.detach()
        return total

    def validate(self, step: int) -> Record:
        """Mean squared errors on validation cells; nothing where there are none."""
        if not self.validation.count:
            return {}
        is_on = self.objectives.is_on(step)
        sums = self.validation.errors(self.network, is_on).sum(axis=0)
        means = zip(OBJECTIVES, sums[1:] / sums[0], is_on, strict=True)
        return measured({name: mean for name, mean, on in means if on})

    def outcome(self, step: int) -> dict[str, Any]:
        """`scores`, (C, 6) of the validation cells: columns as in `validation.SCORES`."""
        return {"scores": np.asarray(self.validation.scores(self.network, self.objectives.is_on(step)))}
