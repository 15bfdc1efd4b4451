"""CLIP learning from images and their captions, over any number of workers.

A worker computes the vectors of its own pairs; all vectors are then gathered, so that every image meets every caption
of the whole batch, however many workers share it (`settings.py` says why summed gradients are exact). A batch
that does not fit into one pass goes twice through the network: first for its vectors, then, piece by piece, for the
gradient at them (Gao et al., "GradCache", RepL4NLP 2021). The result is the same.
"""

# Shapes: N pairs of a whole batch, M of them on this worker, P width of the shared space.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfm.compute.embed import batches, check_identity
from xfm.core.parts import TRAIN, VALIDATION
from xfm.core.random import key64, rng_for
from xfm.core.schema import INPUT_IDS
from xfm.core.tokenizer import Tokenizer, Tokens
from xfm.metrics.zero_shot import chance_of_right, nearest_is_right
from xfm.models.clip.config import CLIP
from xfm.models.clip.fresh import FreshCLIP
from xfm.models.clip.network import CLIPBackbone
from xfm.tasks.contrastive.settings import contrastive_gradients, contrastive_losses, limit_scale
from xfm.tokenizers.text import TextTokenizer
from xfm.training.group import Group, all_gather_rows
from xfm.training.learner import evaluating
from xfm.training.order import Order
from xfm.training.settings import Record, measured
from xfm.training.tokens import RowReader, TokenParts, TokenStore

I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Vectors:
    """What a network says of N pairs, in an order that does not depend on the number of workers."""

    images: Tensor  # images, texts: (N, P) unit vectors
    texts: Tensor
    captions: Tensor  # (N, 2) as in `Pairs`
    scale: Tensor  # () of similarities


@dataclass(frozen=True, slots=True)
class Pairs:
    """Some images and their captions."""

    images: Tokens  # pixels
    texts: Tokens  # ids of the captions
    captions: Tensor  # (M, 2) int64 that stand for their words, and for what they mean

    def to(self, device: str) -> "Pairs":
        """The same on another device."""
        return Pairs(self.images.to(device), self.texts.to(device), self.captions.to(device))


@dataclass(frozen=True, slots=True)
class Collator:
    """Rows with an encoded picture and a caption to pairs."""

    images: Tokenizer  # tokenizer of the pictures
    prompts: TextTokenizer  # tokenizer of the captions
    caption: str  # column of the captions
    match: str  # column of what they mean
    batch_tokens: int  # of one pass, of both towers

    def __call__(self, rows: pa.Table) -> list[Pairs]:
        """M rows in pieces of one pass each, in their order."""
        size = next(batches(self.images.lengths(rows) + self.prompts.max_length, self.batch_tokens)).size
        return [self._pairs(rows.slice(start, size)) for start in range(0, rows.num_rows, size)]

    def _pairs(self, rows: pa.Table) -> Pairs:
        captions = rows[self.caption].cast(pa.string()).to_pylist()
        ids = pa.array([self.prompts.subwords.encode(caption).ids for caption in captions], pa.large_list(pa.int32()))
        texts = self.prompts.collate(pa.table({INPUT_IDS: ids}))
        numbers = torch.stack([_numbers(captions), _numbers(rows[self.match].to_pylist())], dim=1)
        return Pairs(self.images.collate(rows), texts, numbers)


def _numbers(values: Sequence[Any]) -> Tensor:
    """(M,) int64, the same for the same value in any batch and on any worker."""
    return torch.from_numpy(np.array([key64(0, str(value)) for value in values], np.uint64).view(np.int64))


class ContrastiveLearner:
    """One worker's share; see `training.learner.Learner`."""

    names = ("loss",)

    def __init__(self, recipe: "ContrastiveRecipe", rows: RowReader, group: Group, device: str) -> None:
        self.recipe, self.rows, self.group, self.device = recipe, rows, group, device
        images, prompts = recipe.start.tokenizer(recipe.seed).for_training(), recipe.start.prompt_tokenizer()
        self.collate = Collator(images, prompts, recipe.caption, recipe.match, recipe.batch_tokens)
        self.network = recipe.start.build(device)
        self.network.requires_grad_(True)
        self.order = Order(recipe.parts.count(TRAIN), recipe.batch_size, recipe.seed)
        parts, places = recipe.parts.sample(VALIDATION, recipe.validation_rows, recipe.seed)
        self.held, mine = len(parts), slice(group.rank, None, group.world)
        self._held = rows.take(parts[mine], places[mine]) if self.held > group.rank else None

    @property
    def steps_per_epoch(self) -> int:
        return self.order.batches_per_epoch

    def examples(self, step: int) -> list[Pairs]:
        _, parts, rows = self.order.share(step, self.group.rank, self.group.world)
        return self.collate(self.rows.take(parts, rows))

    def counts(self, examples: list[Pairs], step: int) -> list[float]:  # noqa: ARG002
        return [float(sum(len(pairs.captions) for pairs in examples))]

    def backward(self, examples: list[Pairs], counts: Tensor, step: int) -> Tensor:
        scale = self.network.network.logit_scale
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
        vectors = self._validation(self.network)
        hits = _retrieved(vectors)
        return measured({"loss": self._loss(vectors), "retrieval": float(hits.mean())})

    def outcome(self, step: int) -> dict[str, Any]:  # noqa: ARG002
        """Of validation pairs, with the network before and after training.

        Returns:
            images: how many there are; where there are any, also
            hits, hits_before: (N,) whether the nearest caption is right;
            loss, loss_before; chance: retrieval by guessing; captions: how many are distinct.
        """
        if not self.held:
            return {"images": 0}
        after = self._validation(self.network)
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
        return self.network.images(pairs.images), self.network.texts(pairs.texts.ids, pairs.texts.is_token)

    def _again(self, pieces: Sequence[Pairs], by_image: Tensor, by_text: Tensor, step: int) -> None:
        start = 0
        for number, pairs in enumerate(pieces):
            own = slice(start, start + len(pairs.captions))
            torch.autograd.backward(self._vectors(pairs, step, number), (by_image[own], by_text[own]))
            start = own.stop

    def _validation(self, backbone: CLIPBackbone) -> Vectors:
        """Of all validation pairs: worker r holds the pairs r, r + world, ..."""
        found: list[tuple[Tensor, ...]] = []
        with evaluating(backbone):
            for pairs in [] if self._held is None else self.collate(self._held):
                there = pairs.to(self.device)
                texts = backbone.texts(there.texts.ids, there.texts.is_token)
                found.append((backbone.images(there.images), texts, there.captions))
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
        return ContrastiveLearner(self, TokenStore(self.parts), group, device)


def _retrieved(vectors: Vectors) -> NDArray[np.bool_]:
    """(N,) whether the caption nearest to an image is its own, or means the same."""
    meanings = vectors.captions[:, 1].cpu().numpy()
    return nearest_is_right(vectors.images.cpu().numpy(), vectors.texts.cpu().numpy(), meanings, meanings)
