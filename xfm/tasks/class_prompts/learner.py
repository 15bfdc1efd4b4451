"""One worker's share of adapting CLIP to classes that are told by sentences.

The loss of a step is the cross entropy of its images over all classes' sentences, divided by their number, for any
number of workers. Each worker reads all sentences where the text tower is trained; else their vectors are computed
once. Test rows are read in `outcome` alone, at every share of the update (Wortsman et al., CVPR 2022).
"""

# Shapes: B images of a pass, N rows, K classes, P width of the shared space, A shares of the update.

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfm.compute.embed import batches
from xfm.core.parts import PARTS, TEST, VALIDATION, Part
from xfm.core.random import rng_for
from xfm.core.schema import IMAGE, INPUT_IDS, ROW_ID
from xfm.core.tokenizer import Tokens
from xfm.judging.eval_set import MISSING
from xfm.judging.labelled import codes_of
from xfm.models.adapters import set_alpha
from xfm.models.clip.network import CLIPBackbone
from xfm.models.clip.prompts import Prompts, ensembled
from xfm.nn.losses import class_loss
from xfm.tokenizers.image import ImageTokenizer, decode, random_crop
from xfm.tokenizers.text import TextTokenizer
from xfm.training.group import Group, all_gather_rows
from xfm.training.learner import class_scores, evaluating
from xfm.training.order import Order
from xfm.training.settings import Record, measured
from xfm.training.tokens import TokenStore

if TYPE_CHECKING:
    from xfm.tasks.class_prompts.recipe import ClassPromptsRecipe, Images

F32 = NDArray[np.float32]
AT_ONCE = 2048  # encoded pictures in memory together when they are scored


@dataclass(frozen=True, slots=True)
class Example:
    """Images that pass the network together, and their (B,) classes."""

    tokens: Tokens
    codes: Tensor


class ClassPromptsLearner:
    """One worker's share; see `training.learner.Learner`."""

    names = ("loss",)

    def __init__(self, recipe: "ClassPromptsRecipe", group: Group, device: str) -> None:
        self.recipe, self.network, self.group, self.device = recipe, recipe.network().to(device), group, device
        self.task, self.store = recipe.task, TokenStore(recipe.images.parts)
        self.tokenizer: ImageTokenizer = recipe.backbone.tokenizer(recipe.tokens_seed).for_training()
        self.prompts = recipe.backbone.prompt_tokenizer()
        self.numbers, self.rows, _ = recipe.shots()
        # Pictures stay encoded: a few shots are a few megabytes, and are read once.
        self._shots = None if self.task.shots == "all" else self.store.take(self.numbers, self.rows)
        self.order = Order([len(self.rows)], recipe.batch_size, recipe.seed)
        self._texts = _prompt_tokens(self.prompts, recipe.images.prompts).to(device)
        self._fixed = (
            None if self.task.tower != "image" else self.class_vectors(self._texts, recipe.images.prompts).detach()
        )

    @property
    def steps_per_epoch(self) -> int:
        return self.order.batches_per_epoch

    def examples(self, step: int) -> list[Example]:
        epoch, _, places = self.order.share(step, self.group.rank, self.group.world)
        if self._shots is not None:
            table = self._shots.take(np.sort(places))
        else:
            table = self.store.take(self.numbers[places], self.rows[places])
        return self._passes(table, f"epoch {epoch}")

    def counts(self, examples: list[Example], step: int) -> list[float]:  # noqa: ARG002
        return [float(sum(len(example.codes) for example in examples))]

    def backward(self, examples: list[Example], counts: Tensor, step: int) -> Tensor:  # noqa: ARG002
        vectors = self._class_vectors()
        # Passes share the sentences: their gradient is collected at the vectors, then goes through the tower once.
        leaf = vectors.detach().requires_grad_(vectors.requires_grad)
        total = torch.zeros(1, dtype=torch.float64, device=self.device)
        for example in examples:
            images = self.network.images(example.tokens.to(self.device))
            loss = class_loss(self.network.scale * images @ leaf.T, example.codes.to(self.device))
            (loss / counts[0]).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        if vectors.requires_grad:
            vectors.backward(leaf.grad)  # type: ignore[no-untyped-call]
        return total

    def validate(self, step: int) -> Record:  # noqa: ARG002
        """Loss and scores on all validation images that have a class; nothing where there are none."""
        logits, codes = self.logits(self.recipe.images, VALIDATION)
        logits, codes = logits[codes != MISSING], codes[codes != MISSING]
        if not len(codes):
            return {}
        return measured(class_scores(logits, codes, float(class_loss(logits, codes)) / len(codes)))

    def outcome(self, step: int) -> dict[str, Any]:  # noqa: ARG002
        """What every share of the update says of validation and test images, and of the other ones.

        Returns:
            validation, test: (A, N, K) float32 logits of all rows of the part, in the order of the store, by the
            shares of the task; forgetting: likewise (A, N, K'), with forgetting_codes (N,), where there are other
            images; trained: {tower: trained numbers}; shots: (K,) images trained on.
        """
        images, other = self.recipe.images, self.recipe.forgetting
        found: dict[str, list[F32]] = {"validation": [], "test": []}
        found |= {"forgetting": []} if other is not None else {}
        codes = None
        for share in self.task.shares:
            set_alpha(self.network.network, share)
            for part in (VALIDATION, TEST):
                found[part.word].append(self.logits(images, part)[0].cpu().numpy())
            if other is not None:
                logits, codes = self.logits(other, None)
                found["forgetting"].append(logits.cpu().numpy())
        set_alpha(self.network.network, 1.0)
        outcome: dict[str, Any] = {name: np.stack(each) for name, each in found.items()}
        if codes is not None:
            outcome["forgetting_codes"] = codes.cpu().numpy()
        _, _, shots = self.recipe.shots()
        return outcome | {
            "trained": trained_numbers(self.network),
            "shots": np.bincount(shots, minlength=len(images.prompts.values)),
        }

    def logits(self, images: "Images", part: Part | None) -> tuple[Tensor, Tensor]:
        """(N, K) float32 and (N,) classes of the rows of a part, or of all parts, in order; workers share the work."""
        every = [images.parts.everything(each) for each in (PARTS if part is None else (part,))]
        numbers, rows = (np.concatenate([each[side] for each in every]) for side in (0, 1))
        order = np.lexsort((rows, numbers))
        numbers, rows = numbers[order], rows[order]
        store = self.store if images is self.recipe.images else TokenStore(images.parts)
        vectors = [torch.zeros(0, self.network.projection_dim, device=self.device)]
        codes = [torch.zeros(0, dtype=torch.int64, device=self.device)]
        own = np.arange(len(rows))[self.group.rank :: self.group.world]
        with evaluating(self.network):
            texts = self.class_vectors(_prompt_tokens(self.prompts, images.prompts).to(self.device), images.prompts)
            for start in range(0, len(own), AT_ONCE):
                some = own[start : start + AT_ONCE]
                for example in self._passes(store.take(numbers[some], rows[some]), None, images):
                    vectors.append(self.network.images(example.tokens.to(self.device)))
                    codes.append(example.codes.to(self.device))
            gathered = [all_gather_rows(self.group, torch.cat(each), len(rows)) for each in (vectors, codes)]
            logits = self.network.scale * gathered[0] @ texts.T
        return logits.float(), gathered[1]

    def class_vectors(self, texts: Tokens, prompts: Prompts) -> Tensor:
        """(K, P) unit vectors of the classes, by the text tower as it is."""
        return ensembled(self.network.texts(texts.ids, texts.is_token), [len(own) for own in prompts.texts])

    def _class_vectors(self) -> Tensor:
        return self.class_vectors(self._texts, self.recipe.images.prompts) if self._fixed is None else self._fixed

    def _passes(self, table: pa.Table, crops: str | None, images: "Images | None" = None) -> list[Example]:
        """Rows in passes, in their order; `crops` names the draw of random crops, None for the middle."""
        wanted = images or self.recipe.images
        codes = torch.from_numpy(codes_of(table[wanted.label], wanted.prompts.values))
        size = len(next(batches(self.tokenizer.lengths(table), self.recipe.batch_tokens))) if table.num_rows else 1
        return [
            Example(self._tokens(table.slice(start, size), crops), codes[start : start + size])
            for start in range(0, table.num_rows, size)
        ]

    def _tokens(self, rows: pa.Table, crops: str | None) -> Tokens:
        if crops is None or not self.task.augment:
            return self.tokenizer.collate(rows)
        pictures = [
            random_crop(
                decode(data.as_py()), self.tokenizer.size, rng_for(self.recipe.seed, f"crop {crops}\x1f{row}"),
                flip=self.task.flip, least=self.task.least_area,
            )
            for row, data in zip(rows[ROW_ID].to_pylist(), rows[IMAGE], strict=True)
        ]  # fmt: skip
        return self.tokenizer.tokens(np.stack(pictures))


def trained_numbers(network: CLIPBackbone) -> dict[str, int]:
    """{tower: how many numbers are trained}."""
    towers = {"image": network.network.vision_model, "text": network.network.text_model}
    return {name: sum(p.numel() for p in tower.parameters() if p.requires_grad) for name, tower in towers.items()}


def _prompt_tokens(tokenizer: TextTokenizer, prompts: Prompts) -> Tokens:
    """All sentences of all classes, class after class."""
    ids = [tokenizer.subwords.encode(text).ids for own in prompts.texts for text in own]
    return tokenizer.collate(pa.table({INPUT_IDS: pa.array(ids, pa.large_list(pa.int32()))}))
