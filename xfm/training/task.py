"""The contract of what is learned: one class a task, for pretraining, fine-tuning, searches and ablations alike.

The engine stores tokens, trains and publishes; a task says which rows it needs, what is trained on them, and what came
of it. It knows no Ray, no session and no other task. With or without a class label: a task without one returns None
from `rows`.

    start ─▶ (tokens) ─▶ rows ─▶ recipe ─▶ (training) ─▶ result
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pyarrow as pa

from xfm.core.backbone import BackboneConfig
from xfm.core.parts import TRAIN
from xfm.core.report import Figure, Report
from xfm.core.source import Source
from xfm.training.config import TrainingConfig
from xfm.training.learner import Recipe
from xfm.training.settings import Settings, Trained
from xfm.training.tokens import SplitRows, TokenParts, TokenStore


@dataclass(frozen=True, slots=True)
class TaskContext:
    """What a task may know of the job that runs it."""

    settings: Any  # the task's section of the job's settings
    training: TrainingConfig  # how to train, and what is held out
    source: Source  # of the rows
    backbone: Any  # network to start from; None where the task's own settings describe one
    forgetting: Source | None  # other rows, to measure on what training costs elsewhere; None where the job names none
    uri: str  # of OUTPUT, for what a task makes once and keeps there
    record: Mapping[str, Any]  # the job's settings as plain values, for a checkpoint to say what it came from
    has_test: bool = True  # False in a search, which stores no test rows


class TaskRows(Protocol):
    """What a task knows of its rows, in the order of the store: classes or targets, parts, what keys the resamples."""

    def settled(self) -> dict[str, Any]:
        """What the run's recipe says of them: digests that two runs share where their scores may be compared."""

    def label_digests(self) -> dict[str, str]:
        """{label: SHA-256 over the rows that have it, and it}."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know of the data."""


@dataclass(frozen=True, slots=True)
class ExtraSource:
    """Rows that are not trained on, e.g. images on which forgetting is measured, or controls of perturbed cells."""

    source: Source  # of the rows
    columns: tuple[str, ...] = ()  # that they must bring


@dataclass(frozen=True, slots=True)
class TrainingInputs:
    """What a recipe is made of."""

    parts: TokenParts  # the tokens
    rows: Any  # what `Task.rows` returned
    extra: Mapping[str, TokenParts]  # tokens of the extra sources, by name; empty in a search
    settings: Settings  # how it will be trained
    identity: dict[str, Any]  # of the weights at step 0 that the job was planned with


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A training that has ended, as a task reports it."""

    trained: Trained  # weights, history, and what the learner said of the test rows
    settings: Settings  # how it was trained
    parts: TokenParts  # the tokens
    rows: Any  # what `Task.rows` returned
    extra: Mapping[str, TokenParts]  # tokens of the extra sources, by name
    run: Mapping[str, Any]  # content of run.json
    genes: Mapping[str, Any]  # how the source's genes meet the vocabulary; empty where there are none
    refused: Mapping[str, int]  # quarantine lines by code

    @property
    def n_training(self) -> int:
        """Rows that were trained on."""
        return sum(self.parts.count(TRAIN))

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one pass."""
        return self.n_training // self.settings.batch_size


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A network that a backbone reads."""

    kind: str  # of that backbone
    # fills or exchanges the folder it is given, model.safetensors among its files; returns a line for people
    write: Callable[[Path], str]


@dataclass(frozen=True, slots=True)
class Result:
    """What a task leaves behind; the engine publishes it."""

    checkpoint: Checkpoint | None  # the network that was kept; None where a task trains none that a backbone could read
    report: Report  # scores beside their baselines
    # draws the figures of the report below a folder; the first is the hero of the page
    draw: Callable[[Path], list[Figure]] | None = None
    tables: Mapping[str, pa.Table] = field(default_factory=dict)  # files of the OUTPUT by name, e.g. scores.parquet.


class Task(ABC):
    """One thing that can be learned.

    Args:
        context: of the job. A task is made again wherever it is needed, so what it settles belongs into its recipe.

    Raises:
        Refused: the source, the backbone or the settings do not go with it; nothing has been read then.
    """

    fixed: ClassVar[frozenset[str]] = frozenset()
    """Fields of the settings that rows or tokens depend on: all trials of a search share them."""

    afterwards: ClassVar[frozenset[str]] = frozenset()
    """Fields of the settings that are used after training alone: a search does not look at them."""

    split_rows: ClassVar[type[SplitRows]] = SplitRows
    """What sorts the rows of a shard into their parts."""

    def __init__(self, context: TaskContext) -> None:
        self.context = context

    @property
    @abstractmethod
    def noun(self) -> str:
        """What rows are called, in the plural."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that rows must bring, in addition to split, group and what the network reads."""
        return ()

    @property
    def required(self) -> tuple[str, ...]:
        """Of these, those without whose value a row belongs to no part."""
        return ()

    @property
    def start(self) -> BackboneConfig:
        """The network at step 0, as far as it is known before a row is read; it tokenises."""
        backbone: BackboneConfig = self.context.backbone
        return backbone

    @property
    def row_bytes(self) -> int:
        """Of the tokens of one row, about, for `--dry-run`."""
        return 512

    def extra_sources(self) -> dict[str, ExtraSource]:
        """Further rows, by the name of the folder below OUTPUT that keeps their tokens.

        Raises:
            Refused: they cannot be used.
        """
        return {}

    def share(self, parts: TokenParts, common: str, own: str) -> None:  # noqa: B027 - most have nothing to share
        """Lets jobs on the same rows share what each would make, e.g. vectors of labels.

        `common` is the URI of the folder that the jobs have in common, `own` that of this job's OUTPUT.
        """

    def rows(self, store: TokenStore) -> Any:
        """Classes or targets of the stored rows, as `TaskRows`; None where the task has none.

        Raises:
            Refused: the columns, the split or the classes cannot be used.
        """
        del store

    def epoch_rows(self, parts: TokenParts, rows: Any) -> int:
        """Training rows of one epoch."""
        del rows
        return sum(parts.count(TRAIN))

    @abstractmethod
    def recipe(self, given: TrainingInputs) -> Recipe:
        """What is trained, on the driver, once the tokens are there.

        Raises:
            Refused: rows and network do not go together.
        """

    @abstractmethod
    def result(self, recipe: Any, run: TrainingRun) -> Result:
        """Checkpoint, scores and report of what was trained."""

    @property
    def scored(self) -> tuple[str, str] | None:
        """(representation, label) of its own rows in scores.parquet; None where it writes no such table."""
        return None

    def curve(self, name: str) -> str:
        """What an entry of a training record is called with the tracker."""
        return name
