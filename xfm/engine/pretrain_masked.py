"""Pretraining of scGPT: masked expression and generation by cell prompt."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from xfm.core.errors import Refused
from xfm.core.report import Figure, Report
from xfm.core.source import Source
from xfm.engine.planning import ShardPlan
from xfm.engine.pretrain import Pretraining
from xfm.engine.training_config import TrainingConfig
from xfm.models.scgpt.checkpoint import write_checkpoint
from xfm.models.scgpt.config import ScGPT
from xfm.models.scgpt.files import read_vocab
from xfm.models.scgpt.fresh import FreshScGPT, ordered, vocabulary_of
from xfm.models.scgpt.settings import Architecture
from xfm.tasks.masked_expression.learner import MaskedExpressionRecipe
from xfm.tasks.masked_expression.network import network_to_train
from xfm.tasks.masked_expression.report import drawer, pretrain_report
from xfm.tasks.masked_expression.settings import OBJECTIVES, MaskedExpression
from xfm.training.settings import Settings, Trained
from xfm.training.tokens import TokenParts

TOKEN_BYTES = 4  # an id and a value


class MaskedPretraining(Pretraining):
    """scGPT on cells.

    Args:
        task: sizes and objectives.
        source: of the cells.
        config: of training.

    Raises:
        Refused: as `scratch`.
    """

    kind: ClassVar[str] = "scgpt"
    noun: ClassVar[str] = "cells"

    def __init__(self, task: MaskedExpression, source: Source, config: TrainingConfig) -> None:
        self.task, self.config = task, config
        self._start = further(task) if task.init else scratch(task, source, config.seed)

    @property
    def start(self) -> ScGPT | FreshScGPT:
        """The network at step 0."""
        return self._start

    @property
    def row_bytes(self) -> int:
        """Of the tokens of one cell, at most."""
        return self.task.max_length * TOKEN_BYTES

    def recipe(self, parts: TokenParts, identity: dict[str, Any]) -> MaskedExpressionRecipe:
        """See `Pretraining`."""
        config = self.config
        return MaskedExpressionRecipe(
            self.start, parts, self.task.objectives, self.task.mask_fractions, config.batch_size, config.batch_tokens,
            config.validation_cells, config.seed, identity,
        )  # fmt: skip

    def settle(self, recipe: MaskedExpressionRecipe) -> None:
        """See `Pretraining`."""
        del recipe  # the network at step 0 follows from task and source

    def write(self, weights: Mapping[str, Any], folder: Path) -> str:
        """model.safetensors, args.json and vocab.json, which `ScGPT` reads."""
        seed = self.config.seed
        network = network_to_train(self.start, "cpu", seed)
        network.load_state_dict(dict(weights))
        tokenizer = self.start.tokenizer(seed)
        special = {"<cls>": tokenizer.cls_id, network.architecture.pad_token: tokenizer.pad_id}
        vocabulary = dict(tokenizer.vocabulary) | special
        training = {"xfm_pretrain": self.config.recipe()}
        write_checkpoint(folder, network, vocabulary, training=training, replace=True)
        size = network.architecture
        return (
            f"scGPT, {size.n_layers} blocks of width {size.dim}, {len(vocabulary):,} tokens, as model.safetensors, "
            "args.json and vocab.json. To use it: --backbone.kind scgpt --backbone.checkpoint DIR"
        )

    def report(
        self, trained: Trained, settings: Settings, plan: ShardPlan, rows: tuple[int, int], refused: Mapping[str, int]
    ) -> Report:
        """See `Pretraining`."""
        return pretrain_report(trained, settings, self.task.objectives, plan.run, rows, plan.genes, refused)

    def drawer(self, trained: Trained, settings: Settings) -> Callable[[Path], list[Figure]]:  # noqa: ARG002
        """See `Pretraining`."""
        return drawer(trained.history, trained.outcome["scores"])

    @staticmethod
    def curve(name: str) -> str:
        """Errors are mean squared, in bins²."""
        return f"{name}_mse" if name in OBJECTIVES else name


def scratch(task: MaskedExpression, source: Source, seed: int) -> FreshScGPT:
    """A network from scratch.

    Args:
        task: sizes, and the path of a vocab.json where there is one.
        source: whose genes become the vocabulary where there is no other.
        seed: of the initial weights.

    Raises:
        Refused: NO_GENES, NO_VOCABULARY, BAD_VOCABULARY or BAD_SETTINGS.
    """
    if task.dim % task.heads:
        raise Refused("BAD_SETTINGS", f"--task.dim {task.dim} does not divide into --task.heads {task.heads}")
    if task.vocab is not None:
        path = Path(task.vocab).expanduser()
        if not path.is_file():
            raise Refused("NO_VOCABULARY", f"--task.vocab {task.vocab}: no such file")
        tokens = ordered(read_vocab(path), task.vocab)
    else:
        genes = source.genes()
        if genes is None:
            raise Refused(
                "NO_GENES",
                "the source names no genes before reading: its files are compressed or remote, or hold no cells (then "
                "another --task.kind is meant). Give a vocabulary with --task.vocab FILE",
            )
        tokens = vocabulary_of(genes)
    architecture = Architecture(
        n_tokens=len(tokens), mvc="inner product", n_layers=task.layers, n_heads=task.heads, dim=task.dim,
        ffn=task.ffn, dropout=task.dropout, n_bins=task.n_bins, max_length=task.max_length,
    )  # fmt: skip
    return FreshScGPT(tokens=tokens, architecture=architecture, ties=task.ties, seed=seed)


def further(task: MaskedExpression) -> ScGPT:
    """A network from a checkpoint, and its vocabulary where it brings none."""
    assert task.init is not None
    return ScGPT(checkpoint=task.init, vocab=task.vocab, max_length=task.max_length, ties=task.ties)
