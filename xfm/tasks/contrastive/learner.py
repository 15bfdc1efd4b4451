"""CLIP learning from images and their captions, over any number of workers.

A worker computes the vectors of its own pairs; all vectors are then gathered, so that every image meets every caption
of the whole batch, however many workers share it (`tasks/contrastive.py` says why summed gradients are exact). A batch
that does not fit into one pass goes twice through the network: first for its vectors, then, piece by piece, for the
gradient at them (Gao et al., "GradCache", RepL4NLP 2021). The result is the same.
"""

# Shapes: N pairs of a whole batch, M of them on this worker, P width of the shared space.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfm.compute.embed import check_identity
from xfm.core.parts import TRAIN, VALIDATION
from xfm.core.random import key64, rng_for
from xfm.metrics.zero_shot import chance_of_right, nearest_is_right
from xfm.models.clip.config import CLIP
from xfm.models.clip.fresh import FreshCLIP
from xfm.models.clip.network import CLIPBackbone
from xfm.tasks.contrastive.pairs import Collator, Pairs
from xfm.tasks.contrastive.settings import contrastive_gradients, contrastive_losses, limit_scale
from xfm.training.group import Group, all_gather_rows
from xfm.training.order import Order
from xfm.training.settings import Record
from xfm.training.tokens import RowReader, TokenParts, TokenStore

I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Vectors:
    """What a network says of N pairs, in an order that does not depend on the number of workers."""

    images: Tensor  # images, texts: (N, P) unit vectors
    texts: Tensor
    captions: Tensor  # (N, 2) as in `Pairs`
    scale: Tensor  # () of similarities


class ContrastiveLearner:
    """One worker's share; a `Learner`.

    Args:
        backbone: trained in place.
        collator: makes pairs.
        rows: images and captions.
        parts: which of them are trained and validated on.
        recipe: sizes and seed.
        group: who else trains.
        device: of the network.
    """

    names = ("loss",)

    def __init__(
        self,
        backbone: CLIPBackbone,
        collator: Collator,
        rows: RowReader,
        parts: TokenParts,
        recipe: "ContrastiveRecipe",
        group: Group,
        device: str,
    ) -> None:
        self.backbone, self.collate, self.rows, self.recipe = backbone, collator, rows, recipe
        self.group, self.device = group, device
        self.order = Order(parts.count(TRAIN), recipe.batch_size, recipe.seed)
        chosen = recipe.parts.sample(VALIDATION, recipe.validation_rows, recipe.seed)
        self.held = len(chosen[0])
        mine = slice(group.rank, None, group.world)
        self._held = rows.take(chosen[0][mine], chosen[1][mine]) if self.held > group.rank else None

    @property
    def network(self) -> CLIPBackbone:
        return self.backbone

    @property
    def steps_per_epoch(self) -> int:
        return self.order.batches_per_epoch

    def examples(self, step: int) -> list[Pairs]:
        _, parts, rows = self.order.share(step, self.group.rank, self.group.world)
        return self.collate(self.rows.take(parts, rows))

    def counts(self, examples: list[Pairs], step: int) -> list[float]:  # noqa: ARG002
        return [float(sum(len(pairs.captions) for pairs in examples))]

    def backward(self, examples: list[Pairs], counts: Tensor, step: int) -> Tensor:
        scale = self.backbone.network.logit_scale
        limit_scale(scale)
        pieces = [pairs.to(self.device) for pairs in examples]
        with torch.set_grad_enabled(len(pieces) == 1):
            made = [self._vectors(pairs, step, number) for number, pairs in enumerate(pieces)]
        captions = torch.cat([pairs.captions for pairs in pieces])
        images, texts = (torch.cat([each[side] for each in made]) for side in (0, 1))
        batch = [self.group.gather(tensor.detach()) for tensor in (images, texts, captions)]
        first = sum(len(range(rank, int(counts[0]), self.group.world)) for rank in range(self.group.rank))
        losses, by_image, by_text, by_scale = contrastive_gradients(
            batch[0], batch[1], batch[2], scale, first=first, size=len(captions), world=self.group.world
        )
        if scale.requires_grad:
            torch.autograd.backward([scale], [by_scale])
        if len(pieces) == 1:
            torch.autograd.backward([images, texts], [by_image, by_text])
        else:
            self._again(pieces, by_image, by_text, step)
        return losses.double().sum()[None]

    def validate(self, step: int) -> Record:  # noqa: ARG002
        """Loss and retrieval on validation pairs, none of them where no pair is held out."""
        if not self.held:
            return {}
        vectors = self._validation(self.backbone)
        hits = _retrieved(vectors)
        return {"validation_loss": self._loss(vectors), "validation_retrieval": float(hits.mean())}

    def outcome(self, step: int) -> dict[str, Any]:  # noqa: ARG002
        """Of validation pairs, with the network before and after training.

        Returns:
            images: how many there are; where there are any, also
            hits, hits_before: (N,) whether the nearest caption is right;
            loss, loss_before; chance: retrieval by guessing; captions: how many are distinct.
        """
        if not self.held:
            return {"images": 0}
        after = self._validation(self.backbone)
        before = self._validation(self.recipe.start.build(self.device))
        captions, meanings = after.captions.cpu().numpy().T
        return {
            "images": self.held,
            "hits": _retrieved(after),
            "hits_before": _retrieved(before),
            "loss": self._loss(after),
            "loss_before": self._loss(before),
            "chance": chance_of_right(meanings, meanings),
            "captions": len(np.unique(captions)),
        }

    def _vectors(self, pairs: Pairs, step: int, piece: int) -> tuple[Tensor, Tensor]:
        # Seeded for each piece: where there is dropout, the second pass must drop what the first one did.
        torch.manual_seed(key64(self.recipe.seed, f"dropout {step} {self.group.rank} {piece}"))
        return self.backbone.images(pairs.images), self.backbone.texts(pairs.texts.ids, pairs.texts.is_token)

    def _again(self, pieces: Sequence[Pairs], by_image: Tensor, by_text: Tensor, step: int) -> None:
        start = 0
        for number, pairs in enumerate(pieces):
            own = slice(start, start + len(pairs.captions))
            torch.autograd.backward(self._vectors(pairs, step, number), (by_image[own], by_text[own]))
            start = own.stop

    def _validation(self, backbone: CLIPBackbone) -> Vectors:
        """Of all validation pairs: worker r holds the pairs r, r + world, ..."""
        was_training = backbone.training
        backbone.eval()
        found: list[tuple[Tensor, ...]] = []
        with torch.inference_mode():
            for pairs in [] if self._held is None else self.collate(self._held):
                there = pairs.to(self.device)
                texts = backbone.texts(there.texts.ids, there.texts.is_token)
                found.append((backbone.images(there.images), texts, there.captions))
        backbone.train(was_training)
        vectors, numbers = torch.zeros(0, backbone.projection_dim), torch.zeros(0, 2, dtype=torch.int64)
        found.append(tuple(empty.to(self.device) for empty in (vectors, vectors, numbers)))
        sides = [all_gather_rows(self.group, torch.cat(side), self.held) for side in zip(*found, strict=True)]
        return Vectors(sides[0], sides[1], sides[2], backbone.scale.detach())

    def _loss(self, vectors: Vectors) -> float:
        """Mean over batches as large as those of training, since the loss grows with the batch."""
        size = min(self.order.batch_size, self.held)
        shuffled = rng_for(self.recipe.seed, "validation batches").permutation(self.held)
        losses = []
        for start in range(0, self.held - size + 1, size):
            rows = torch.from_numpy(shuffled[start : start + size]).to(self.device)
            images, texts, captions = vectors.images[rows], vectors.texts[rows], vectors.captions[rows]
            losses.append(contrastive_losses(images, texts, captions, vectors.scale).double().mean())
        return float(torch.stack(losses).mean())


@dataclass(frozen=True)
class ContrastiveRecipe:
    """The recipe of a `ContrastiveLearner`; it travels."""

    start: CLIP | FreshCLIP  # the network at step 0
    parts: TokenParts  # images and captions
    caption: str  # caption, match: columns of the captions, and of what they mean
    match: str
    batch_size: int  # pairs of a step, over all workers
    batch_tokens: int  # of one pass
    validation_rows: int  # pairs to validate on at most
    seed: int  # of the order
    identity: dict[str, Any]  # what `start` must find; another copy of a checkpoint is refused

    def build(self, group: Group, device: str) -> ContrastiveLearner:
        """Opens the rows and builds the network.

        Raises:
            EnvironmentProblem: another copy of the checkpoint.
            Refused: NO_TRAINING_ROWS, or FEW_ROWS for so many workers.
        """
        check_identity(self.start, self.identity)
        collator = Collator(
            self.start.tokenizer(self.seed).for_training(), self.start.prompt_tokenizer(), self.caption,
            self.match, self.batch_tokens,
        )  # fmt: skip
        backbone = self.start.build(device)
        backbone.requires_grad_(True)
        return ContrastiveLearner(backbone, collator, TokenStore(self.parts), self.parts, self, group, device)


def _retrieved(vectors: Vectors) -> NDArray[np.bool_]:
    """(N,) whether the caption nearest to an image is its own, or means the same."""
    meanings = vectors.captions[:, 1].cpu().numpy()
    return nearest_is_right(vectors.images.cpu().numpy(), vectors.texts.cpu().numpy(), meanings, meanings)
