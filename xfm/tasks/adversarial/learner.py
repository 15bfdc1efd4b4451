"""Telling classes apart against an adversary, as training sees it: two losses, one step, scores on validation rows.

The loss of a step is the mean cross entropy over the rows of its whole batch, plus the adversary's mean over the rows
of the batch whose attribute is known, for any number of workers. Words are looked up in a bank: no encoder runs here.
Test rows are read in `outcome` alone, after the last step, with the weights that are kept.
"""

# Shapes: N rows of a part, B rows of a pass, K classes, F features, L latents.

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional

from xfm.compute.embed import check_identity
from xfm.core.parts import TEST, TRAIN, VALIDATION, Part
from xfm.core.schema import EMBEDDING
from xfm.judging.eval_set import MISSING
from xfm.judging.labelled import codes_of
from xfm.metrics.attention import MeanAttention
from xfm.metrics.leakage import auroc, evenly_apart, leakage, of_one_class, why_undefined
from xfm.metrics.resampling import GroupDraws
from xfm.models.fusion.config import Fusion
from xfm.models.fusion.label_embeddings import TextBank
from xfm.models.fusion.network import FusionModel
from xfm.nn.losses import class_loss
from xfm.tasks.adversarial.network import AdversarialClassifier, FusionBatch, adversary_loss, freeze_unread
from xfm.tasks.adversarial.settings import MOST_LOSS, AdversarialClassification
from xfm.tokenizers.embedding import vectors_of
from xfm.training.group import Group, all_gather_rows
from xfm.training.learner import class_scores, evaluating
from xfm.training.order import Order
from xfm.training.settings import Record, measured
from xfm.training.state import with_weights
from xfm.training.tokens import TokenParts, TokenStore

AT_ONCE = 1024  # rows of a part that pass together when they are scored
SHOWN = 3  # test rows whose attention is kept whole
EVERY = slice(None)


@dataclass(frozen=True, slots=True)
class Columns:
    """Where in the rows things are, and in which order classes are counted."""

    text: str  # column of the words
    label: str  # label, classes: what is told apart
    classes: tuple[str, ...]
    attribute: str | None  # attribute, attributes: what is unlearned; None and nothing where there is none
    attributes: tuple[str, ...]

    def cells(self, table: pa.Table, bank: TextBank) -> FusionBatch:
        """Rows as the network takes them.

        Raises:
            Refused: UNKNOWN_LABEL, words that were never encoded.
        """
        unknown = np.full(table.num_rows, MISSING, np.int64)
        attribute = unknown if self.attribute is None else codes_of(table[self.attribute], self.attributes)
        codes = codes_of(table[self.label], self.classes)
        found = (vectors_of(table[EMBEDDING]), bank.codes(table[self.text]), codes, attribute)
        return FusionBatch(*(torch.from_numpy(np.array(each)) for each in found))


@dataclass(frozen=True, slots=True)
class Scored:
    """What the network says of rows: (N, K) logits, (N, F) features, (N,) classes and attributes."""

    logits: Tensor
    features: Tensor
    codes: Tensor
    attribute: Tensor


class AdversarialLearner:
    """One worker's share; see `training.learner.Learner`."""

    def __init__(self, recipe: "AdversarialRecipe", rows: TokenStore, group: Group, device: str) -> None:
        self.recipe, self.rows, self.group, self.device = recipe, rows, group, device
        self.task, self.bank, self.columns, self.parts = recipe.task, recipe.bank, recipe.columns, recipe.parts
        self.order = Order(self.parts.count(TRAIN), recipe.batch_size, recipe.seed)
        network = recipe.network()
        numbers, places = self.parts.everything(TRAIN)
        freeze_unread(network, self.columns.cells(rows.take(numbers[:1], places[:1]), self.bank))
        self.network = network.to(device)

    @property
    def names(self) -> tuple[str, ...]:
        """The sum of both, and each alone."""
        return ("loss", "main", "adversary") if self.task.is_adversarial else ("loss", "main")

    @property
    def steps_per_epoch(self) -> int:
        return self.order.batches_per_epoch

    def examples(self, step: int) -> FusionBatch:
        _, parts, rows = self.order.share(step, self.group.rank, self.group.world)
        return self.columns.cells(self.rows.take(parts, rows), self.bank)

    def counts(self, examples: FusionBatch, step: int) -> list[float]:  # noqa: ARG002
        """Rows that have a class, twice, and rows whose attribute is known."""
        held, known = (float((each != MISSING).sum()) for each in (examples.codes, examples.attribute))
        return [held, held, known][: len(self.names)]

    def backward(self, examples: FusionBatch, counts: Tensor, step: int) -> Tensor:
        cells, task = examples.to(self.device), self.task
        rows, held = counts[0].clamp(min=1), cells.codes != MISSING
        logits, guessed = self.network(cells, task.strength(min(1.0, step / self.recipe.steps)))
        main = class_loss(logits[held], cells.codes[held])
        if guessed is None:
            (main / rows).backward()  # type: ignore[no-untyped-call]
            return torch.stack([main.detach(), main.detach()]).double()
        known = counts[2].clamp(min=1)
        most = MOST_LOSS if task.reversal == "reference" else None
        adversary = adversary_loss(guessed, cells.attribute, most).sum()
        weight = task.sign * task.adv_weight
        (main / rows + weight * adversary / known).backward()  # type: ignore[no-untyped-call]
        main, adversary = main.detach().double(), adversary.detach().double()
        return torch.stack([main + weight * adversary * rows / known, main, adversary])

    def validate(self, step: int) -> Record:  # noqa: ARG002
        """Loss and scores on the validation rows that have a class, and what a fresh classifier, over donors that it
        has not seen, reads of the attribute; nothing where there are none."""
        found = self.scored(VALIDATION)
        held = found.codes != MISSING
        if not held.any():
            return {}
        logits, codes, leaked = found.logits[held], found.codes[held], self._leaked(found)
        named = class_scores(logits, codes, float(functional.cross_entropy(logits.double(), codes)))
        return measured(named | ({} if leaked is None else {"leakage_auroc": leaked}))

    def outcome(self, step: int) -> dict[str, Any]:  # noqa: ARG002
        """Of all rows of a part, in the order of the store: `validation`, `test` (N, K) float32 logits;
        `validation_features`, `test_features` (N, F). `attention` of the test rows, for a fusion; see `_attention`."""
        found: dict[str, Any] = {}
        for part in (VALIDATION, TEST):
            scored = self.scored(part)
            found |= {part.word: scored.logits.numpy(), f"{part.word}_features": scored.features.numpy()}
        if isinstance(self.network.network, FusionModel):
            found["attention"] = self._attention()
        return found

    def scored(self, part: Part) -> Scored:
        """What the network says of all rows of a part, on the CPU; workers share the work."""
        widths = [len(self.columns.classes), self.network.network.feature_dim, 1, 1]
        pieces = [torch.empty(0, sum(widths), device=self.device)]
        with evaluating(self.network):
            for cells in self._mine(part):
                features = self.network.features(cells)
                logits = self.network.classify(features, cells.attribute)
                # Codes beside them: float32 holds them exactly.
                beside = [cells.codes[:, None], cells.attribute[:, None]]
                pieces.append(torch.cat([logits, features, *beside], dim=1))
        merged = all_gather_rows(self.group, torch.cat(pieces).float(), sum(self.parts.count(part))).cpu()
        logits, features, codes, attribute = torch.split(merged, widths, dim=1)
        return Scored(logits.contiguous(), features.contiguous(), codes[:, 0].long(), attribute[:, 0].long())

    def _mine(self, part: Part, among: slice = EVERY) -> Iterator[FusionBatch]:
        """This worker's rows among those of a part."""
        numbers, rows = self.parts.everything(part)
        mine = slice(self.group.rank, None, self.group.world)
        numbers, rows = numbers[among][mine], rows[among][mine]
        for start in range(0, len(rows), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            # `take` sorts by part and row, which is the order they have here.
            yield self.columns.cells(self.rows.take(numbers[some], rows[some]), self.bank).to(self.device)

    def _leaked(self, found: Scored) -> float | None:
        held = torch.nonzero((found.attribute != MISSING) & (found.codes != MISSING))[:, 0].numpy()
        codes, groups = found.attribute.numpy(), found.codes.numpy()
        held = evenly_apart(held[of_one_class(codes[held], groups[held])])
        codes, groups = codes[held], groups[held]
        if self.columns.attribute is None or why_undefined(codes, groups):
            return None
        # Once: other folds of the same few donors add little (.124 to .115 of the spread with twenty of them).
        features, seed = found.features.numpy()[held], self.recipe.seed
        read = leakage(features, codes, groups, seed, n_classes=len(self.columns.attributes), repeats=1)
        return auroc(read, codes, GroupDraws(groups, seed, 0)).value

    def _attention(self) -> dict[str, Any]:
        """Weights between latents over all test rows, rows of a map ask: `mean` (L, L) text to gene, `entropy` and
        `variation` as `metrics.attention.MeanAttention` has them; `samples`: (text to gene, gene to text), each
        (n, L, L), and `places`, (n,) of the test rows, for a few."""
        assert isinstance(self.network.network, FusionModel)
        latents = self.network.network.sizes.latents
        found, total = MeanAttention(self.recipe.seed), sum(self.parts.count(TEST))
        for start in range(0, total, AT_ONCE):
            some = slice(start, min(start + AT_ONCE, total))
            with evaluating(self.network):
                own = [self._map(cells) for cells in self._mine(TEST, some)]
            own = own or [torch.empty(0, latents, latents, device=self.device)]
            found.add(all_gather_rows(self.group, torch.cat(own), some.stop - some.start).cpu().numpy())
        places, samples = self._samples(total)
        return {
            "mean": found.mean, "entropy": found.entropy, "variation": found.variation, "cells": found.cells,
            "places": places, "samples": samples,
        }  # fmt: skip

    def _map(self, cells: FusionBatch) -> Tensor:
        weights = self.network.attend(cells).text_to_gene
        assert weights is not None
        return weights

    def _samples(self, rows: int) -> tuple[Any, tuple[Any, Any]]:
        """Test rows evenly apart; every worker reads the same."""
        places = np.unique(np.linspace(0, max(0, rows - 1), SHOWN).astype(np.int64))[:rows]
        numbers, inside = self.parts.everything(TEST)
        with evaluating(self.network):
            table = self.rows.take(numbers[places], inside[places])
            found = self.network.attend(self.columns.cells(table, self.bank).to(self.device))
        assert found.text_to_gene is not None
        assert found.gene_to_text is not None
        return places, (found.text_to_gene.cpu().numpy(), found.gene_to_text.cpu().numpy())


@dataclass(frozen=True, slots=True, eq=False)
class AdversarialRecipe:
    """The adversarial classifier, as it travels to every worker."""

    backbone: Fusion  # a fusion, from scratch or aligned
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
        return AdversarialLearner(self, TokenStore(self.parts), group, device)

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
