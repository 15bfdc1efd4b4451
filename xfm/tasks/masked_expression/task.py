"""Masked expression as a task: scGPT on cells, from scratch or further."""

from functools import partial
from pathlib import Path
from typing import ClassVar

from xfm.core.errors import Refused
from xfm.core.source import Source
from xfm.models.scgpt.checkpoint import write_checkpoint
from xfm.models.scgpt.config import ScGPT
from xfm.models.scgpt.files import read_vocab
from xfm.models.scgpt.fresh import FreshScGPT, ordered, vocabulary_of
from xfm.models.scgpt.settings import Architecture
from xfm.tasks.masked_expression.learner import MaskedExpressionRecipe, network_to_train
from xfm.tasks.masked_expression.report import draw, pretrain_report
from xfm.tasks.masked_expression.settings import OBJECTIVES, MaskedExpression
from xfm.training.task import Checkpoint, Result, Task, TaskContext, TrainingInputs, TrainingRun

TOKEN_BYTES = 4  # an id and a value


class MaskedExpressionTask(Task):
    """Hidden genes, and generation by cell prompt.

    Raises:
        Refused: as `scratch`.
    """

    fixed: ClassVar[frozenset[str]] = frozenset({"kind", "init", "vocab", "n_bins", "ties", "max_length"})
    noun = "cells"

    def __init__(self, context: TaskContext) -> None:
        super().__init__(context)
        task: MaskedExpression = context.settings
        self._start = further(task) if task.init else scratch(task, context.source, context.training.seed)

    @property
    def start(self) -> ScGPT | FreshScGPT:
        """The network at step 0."""
        return self._start

    @property
    def row_bytes(self) -> int:
        """Of the longest cell."""
        return int(self.context.settings.max_length) * TOKEN_BYTES

    def recipe(self, given: TrainingInputs) -> MaskedExpressionRecipe:
        """All weights, by the objectives that are on."""
        task, training = self.context.settings, self.context.training
        return MaskedExpressionRecipe(
            self._start, given.parts, task.objectives, task.mask_fractions, given.settings.batch_size,
            training.batch_tokens, training.validation_rows, training.seed, given.identity,
        )  # fmt: skip

    def result(self, recipe: MaskedExpressionRecipe, run: TrainingRun) -> Result:
        """A folder that `ScGPT` reads; errors beside the means of gene and cell."""
        task, trained, start = self.context.settings, run.trained, recipe.backbone

        def write(folder: Path) -> str:
            network = network_to_train(start, "cpu", recipe.seed)
            network.load_state_dict(dict(trained.weights))
            tokenizer = start.tokenizer(recipe.seed)
            special = {"<cls>": tokenizer.cls_id, network.architecture.pad_token: tokenizer.pad_id}
            vocabulary = dict(tokenizer.vocabulary) | special
            write_checkpoint(
                folder, network, vocabulary, training={"xfm_pretrain": dict(self.context.record)}, replace=True
            )
            size = network.architecture
            return (
                f"scGPT, {size.n_layers} blocks of width {size.dim}, {len(vocabulary):,} tokens, as model.safetensors, "
                "args.json and vocab.json. To use it: --backbone.kind scgpt --backbone.checkpoint DIR"
            )

        drawn = partial(draw, trained.history, trained.outcome["scores"])
        return Result(Checkpoint("scgpt", write), pretrain_report(run, task.objectives), drawn)

    def curve(self, name: str) -> str:
        """Errors are mean squared, in bins²."""
        return f"{name}_mse" if name in OBJECTIVES else name


def scratch(task: MaskedExpression, source: Source, seed: int) -> FreshScGPT:
    """A network from scratch; the source's genes become the vocabulary where the task names no other.

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
