"""Pictures and captions as a task: CLIP, from scratch or further.

From scratch, the byte pairs are learned from the training captions, which are read with the pictures: before that the
network is known but for its vocabulary.
"""

from functools import partial
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from xfm.core.parts import TRAIN
from xfm.models.clip.config import CLIP
from xfm.models.clip.fresh import FreshCLIP
from xfm.models.clip.writing import save_clip, write_checkpoint
from xfm.tasks.contrastive.learner import ContrastiveRecipe
from xfm.tasks.contrastive.report import contrastive_report, draw
from xfm.tasks.contrastive.settings import Contrastive
from xfm.training.state import with_weights
from xfm.training.task import Checkpoint, Result, Task, TaskContext, TrainingInputs, TrainingRun
from xfm.training.tokens import TokenParts, TokenStore


class ContrastiveTask(Task):
    """Each picture must find its caption, and each caption its picture."""

    fixed: ClassVar[frozenset[str]] = frozenset(
        {"kind", "init", "caption", "match", "vocabulary_size", "image_size", "text_length"}
    )
    noun = "images"

    def __init__(self, context: TaskContext) -> None:
        super().__init__(context)
        task: Contrastive = context.settings
        self.match = task.match or task.caption
        self._start: CLIP | FreshCLIP = CLIP(checkpoint=task.init) if task.init else self._fresh(())

    @property
    def columns(self) -> tuple[str, ...]:
        """The caption, and what says which captions are right."""
        return tuple(dict.fromkeys((self.context.settings.caption, self.match)))

    @property
    def required(self) -> tuple[str, ...]:
        """All of them."""
        return self.columns

    @property
    def start(self) -> CLIP | FreshCLIP:
        """The network at step 0; from scratch without byte pairs, which `recipe` learns from the captions."""
        return self._start

    @property
    def row_bytes(self) -> int:
        """Of a picture of the size that is seen."""
        return 3 * int(self._start.tokenizer(0).size) ** 2

    def recipe(self, given: TrainingInputs) -> ContrastiveRecipe:
        task, training, start = self.context.settings, self.context.training, self._start
        identity = given.identity
        if isinstance(start, FreshCLIP):
            start = self._fresh(training_captions(given.parts, task.caption))
            identity = start.identity()
        return ContrastiveRecipe(
            start, given.parts, task.caption, self.match, given.settings.batch_size, training.batch_tokens,
            training.validation_rows, training.seed, identity,
        )  # fmt: skip

    def result(self, recipe: ContrastiveRecipe, run: TrainingRun) -> Result:
        """A plain CLIP folder; retrieval on held-out pictures beside the network before training and guessing."""
        start, trained = recipe.start, run.trained

        def write(folder: Path) -> str:
            backbone = with_weights(start.build("cpu"), trained.weights)
            if isinstance(start, FreshCLIP):
                write_checkpoint(folder, backbone, start, replace=True)
            else:
                save_clip(folder, backbone.network, start.folder, replace=True)
            size = sum(parameter.numel() for parameter in backbone.parameters())
            return (
                f"CLIP, {size:,} parameters, image tower of {backbone.n_layers} blocks of width {backbone.dim}, as a "
                "folder that transformers reads. To use it: --backbone.kind clip --backbone.checkpoint DIR"
            )

        before = "before training" if self.context.settings.init else "untrained"
        report = contrastive_report(run, start=before, identity=start.identity(), match=recipe.match)
        return Result(Checkpoint("clip", write), report, partial(draw, trained.history, run.settings.batch_size))

    def _fresh(self, captions: tuple[str, ...]) -> FreshCLIP:
        task: Contrastive = self.context.settings
        return FreshCLIP.from_captions(
            captions, task.sizes, seed=self.context.training.seed, vocabulary_size=task.vocabulary_size
        )


def training_captions(parts: TokenParts, column: str) -> tuple[str, ...]:
    """The different captions of training rows, which stand first in each part."""
    columns = TokenStore(parts).column(column)
    own = [each.slice(0, size).cast(pa.string()) for each, size in zip(columns, parts.count(TRAIN), strict=True)]
    return tuple(sorted({caption for each in own for caption in each.to_pylist()}))
