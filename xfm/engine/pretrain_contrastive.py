"""Pretraining of CLIP on pictures and captions.

From scratch, the byte pairs are learned from the training captions, which are read with the pictures: before that the
network is known but for its vocabulary.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from xfm.core.errors import Refused
from xfm.core.parts import TRAIN
from xfm.core.report import Figure, Report
from xfm.core.source import Source
from xfm.engine.planning import ShardPlan
from xfm.engine.pretrain import Pretraining
from xfm.engine.training_config import TrainingConfig
from xfm.models.clip.config import CLIP
from xfm.models.clip.fresh import FreshCLIP
from xfm.models.clip.writing import save_clip, write_checkpoint
from xfm.tasks.contrastive.learner import ContrastiveRecipe
from xfm.tasks.contrastive.report import contrastive_report, drawer
from xfm.tasks.contrastive.settings import Contrastive
from xfm.training.settings import Settings, Trained
from xfm.training.tokens import TokenParts, TokenStore


class ContrastivePretraining(Pretraining):
    """CLIP on pictures and captions.

    Args:
        task: sizes and columns.
        source: of the pictures.
        config: of training.

    Raises:
        Refused: NO_COLUMN, the source has no captions.
    """

    kind: ClassVar[str] = "clip"
    noun: ClassVar[str] = "images"

    def __init__(self, task: Contrastive, source: Source, config: TrainingConfig) -> None:
        self.task, self.config = task, config
        self.match = task.match or task.caption
        self.columns = tuple(dict.fromkeys((task.caption, self.match)))
        for flag, name in (("caption", task.caption), ("match", self.match)):
            if name not in source.schema.names:
                raise Refused("NO_COLUMN", f"--task.{flag} {name}: the source gives {', '.join(source.schema.names)}. "
                              "Is it among --source.obs?")  # fmt: skip
        self._start: CLIP | FreshCLIP = CLIP(checkpoint=task.init) if task.init else self._fresh(())

    @property
    def start(self) -> CLIP | FreshCLIP:
        """The network at step 0; from scratch without byte pairs until `recipe` has seen the captions."""
        return self._start

    @property
    def row_bytes(self) -> int:
        """Of an encoded picture of the size that is seen; larger ones are kept as they came."""
        return 3 * self.start.tokenizer(0).size ** 2

    def recipe(self, parts: TokenParts, identity: dict[str, Any]) -> ContrastiveRecipe:
        """See `Pretraining`."""
        config = self.config
        if isinstance(self._start, FreshCLIP):
            self._start = self._fresh(training_captions(parts, self.task.caption))
            identity = self._start.identity()
        return ContrastiveRecipe(
            self._start, parts, self.task.caption, self.match, config.batch_size, config.batch_tokens,
            config.validation_cells, config.seed, identity,
        )  # fmt: skip

    def settle(self, recipe: ContrastiveRecipe) -> None:
        """See `Pretraining`."""
        self._start = recipe.start

    def write(self, weights: Mapping[str, Any], folder: Path) -> str:
        """A plain CLIP folder."""
        backbone = self._start.build("cpu")
        unknown = backbone.load_state_dict(dict(weights), strict=False).unexpected_keys
        assert not unknown, unknown
        if isinstance(self._start, FreshCLIP):
            write_checkpoint(folder, backbone, self._start, replace=True)
        else:
            save_clip(folder, backbone.network, self._start.folder, replace=True)
        size = sum(parameter.numel() for parameter in backbone.parameters())
        return (
            f"CLIP, {size:,} parameters, image tower of {backbone.n_layers} blocks of width {backbone.dim}, as a "
            "folder that transformers reads. To use it: --backbone.kind clip --backbone.checkpoint DIR"
        )

    def report(
        self, trained: Trained, settings: Settings, plan: ShardPlan, rows: tuple[int, int], refused: Mapping[str, int]
    ) -> Report:
        """See `Pretraining`."""
        start = "before training" if self.task.init else "untrained"
        return contrastive_report(
            trained, settings, plan.run, rows, refused, start=start, identity=self._start.identity(), match=self.match
        )

    def drawer(self, trained: Trained, settings: Settings) -> Callable[[Path], list[Figure]]:
        """See `Pretraining`."""
        return drawer(trained.history, settings.batch_size)

    def _fresh(self, captions: tuple[str, ...]) -> FreshCLIP:
        task = self.task
        return FreshCLIP.from_captions(
            captions, task.sizes, seed=self.config.seed, vocabulary_size=task.vocabulary_size
        )


def training_captions(parts: TokenParts, column: str) -> tuple[str, ...]:
    """The different captions of training rows, which stand first in each part."""
    columns = TokenStore(parts).column(column)
    own = [each.slice(0, size).cast(pa.string()) for each, size in zip(columns, parts.count(TRAIN), strict=True)]
    return tuple(sorted({caption for each in own for caption in each.to_pylist()}))
