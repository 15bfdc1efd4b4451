"""The recipe of CLIP adapted by low-rank updates: few images of each class, classes told by their sentences.

Few-shot protocol of Radford et al., ICML 2021, section 3.1.5, and Zhou et al., IJCV 2022 (CoOp): so many of each class,
drawn anew for each seed. Here 2 shots hold the 1 shot of the same seed, and so on, so that curves over shots compare
like with like.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xfm.compute.embed import check_identity
from xfm.core.parts import TRAIN
from xfm.core.random import key64
from xfm.core.schema import ROW_ID
from xfm.judging.labelled import codes_of
from xfm.models.adapters import LoRA, add_lora, merge, set_alpha
from xfm.models.clip.config import CLIP
from xfm.models.clip.network import CLIPBackbone
from xfm.models.clip.prompts import Prompts
from xfm.tasks.class_prompts.learner import ClassPromptsLearner
from xfm.tasks.class_prompts.settings import ClassPromptTuning
from xfm.training.group import Group
from xfm.training.state import with_weights
from xfm.training.tokens import TokenParts, TokenStore, strings_at

I64 = NDArray[np.int64]


def few_shots(row_ids: Sequence[str], codes: NDArray[np.integer], shots: int | Literal["all"], seed: int) -> I64:
    """Which rows to train on.

    Args:
        codes: (N,) their classes; rows below 0 have none and are never chosen.
        shots: of each class; a class that has fewer gives what it has.

    Returns:
        Rising positions.
    """
    if shots == "all":
        return np.flatnonzero(codes >= 0)
    words = np.fromiter((key64(seed, f"shot\x1f{row}") for row in row_ids), np.uint64, len(row_ids))
    order = np.argsort(words, kind="stable")
    chosen = [order[codes[order] == code][:shots] for code in np.unique(codes[codes >= 0])]
    return np.sort(np.concatenate([np.empty(0, np.int64), *chosen]))


@dataclass(frozen=True, slots=True)
class Images:
    """Rows of a store, the column of their classes, and what stands for the classes."""

    parts: TokenParts  # the rows
    label: str  # column of the classes
    prompts: Prompts  # sentences of each class


@dataclass(frozen=True, slots=True)
class ClassPromptsRecipe:
    """CLIP with updates, as it travels to every worker."""

    backbone: CLIP  # of the network before
    task: ClassPromptTuning  # what is trained, on how many images
    images: Images  # to train, choose and test on
    forgetting: Images | None  # other images, scored at each share of the update; None where there are none
    batch_size: int  # images of a step, over all workers
    batch_tokens: int  # of one pass
    seed: int  # keys shots, order, crops and updates
    tokens_seed: int  # that the tokens were made with
    identity: dict[str, Any]  # what `backbone` must find; another copy of a checkpoint is refused

    def build(self, group: Group, device: str) -> ClassPromptsLearner:
        """Reads the weights and puts updates beside them.

        Raises:
            Refused: NO_LORA, or the weights cannot be used.
            EnvironmentProblem: another copy of the checkpoint.
        """
        check_identity(self.backbone, self.identity)
        return ClassPromptsLearner(self, group, device)

    def network(self) -> CLIPBackbone:
        """Before the first step, on the CPU: the same on every worker, and as good as the pretrained one."""
        backbone, task = self.backbone.build("cpu"), self.task
        add_lora(backbone, LoRA(task.rank, task.alpha, task.dropout, task.tower, self.seed))
        return backbone

    def merged(self, weights: dict[str, Any], share: float) -> CLIPBackbone:
        """With that share of the trained updates added to the weights; plain modules, in evaluation mode."""
        backbone = with_weights(self.network(), weights)
        set_alpha(backbone.network, share)
        merge(backbone.network)
        return backbone.eval()

    def shots(self) -> tuple[I64, I64, NDArray[np.int64]]:
        """(N,) part numbers, rows and classes of the images that are trained on."""
        return chosen_shots(self.images, self.task, self.seed)


def chosen_shots(images: Images, task: ClassPromptTuning, seed: int) -> tuple[I64, I64, I64]:
    """(N,) part numbers, rows and classes of the training images that a task takes."""
    store = TokenStore(images.parts)
    numbers, rows = images.parts.everything(TRAIN)
    ids, labels = (strings_at(store.column(name), numbers, rows) for name in (ROW_ID, images.label))
    codes = codes_of(labels, images.prompts.values)
    chosen = few_shots(ids.to_pylist(), codes, task.shots, seed)
    return numbers[chosen], rows[chosen], codes[chosen]
