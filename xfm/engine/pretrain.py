"""What pretraining jobs have in common: rows to tokens, settings, curves, and a checkpoint that a backbone reads.

What is learned from the tokens is a `Pretraining`: `pretrain_masked.py` for cells, `pretrain_contrastive.py` for
pictures and captions.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from xfm.core.backbone import BackboneConfig
from xfm.core.errors import Refused
from xfm.core.report import Figure, Report
from xfm.core.source import Source
from xfm.core.storage import below
from xfm.engine.planning import ShardPlan
from xfm.engine.session import OpenJob
from xfm.engine.stage import StageResult
from xfm.engine.tokens import TOKENS, store_tokens
from xfm.engine.training_config import TrainingConfig
from xfm.loops.training.learner import Recipe
from xfm.loops.training.settings import Settings, Trained
from xfm.loops.training.tokens import TRAIN, SplitRows, TokenParts

logger = logging.getLogger(__name__)


class Pretraining(ABC):
    """One way to pretrain: what it starts from, learns, writes and reports."""

    kind: ClassVar[str]
    """Of the backbone that reads the checkpoint."""
    noun: ClassVar[str]
    """What rows are called."""
    columns: tuple[str, ...] = ()
    """Columns that every row must have, beside what the backbone reads."""

    @property
    @abstractmethod
    def start(self) -> BackboneConfig:
        """The network at step 0, as far as it is known before a row is read; it tokenises."""

    @property
    @abstractmethod
    def row_bytes(self) -> int:
        """Of the tokens of one row, at most, for `--dry-run`."""

    @abstractmethod
    def recipe(self, parts: TokenParts, identity: dict[str, Any]) -> Recipe:
        """What is learned, once the tokens are there.

        Args:
            parts: the tokens.
            identity: of the weights that the job was planned with.
        """

    @abstractmethod
    def write(self, weights: Mapping[str, Any], folder: Path) -> str:
        """The checkpoint, in place of an older one; returns a line about it for people."""

    @abstractmethod
    def report(
        self, trained: Trained, settings: Settings, plan: ShardPlan, rows: tuple[int, int], refused: Mapping[str, int]
    ) -> Report:
        """What it reached on the rows held out; `rows` are those trained on and those held out."""

    @abstractmethod
    def drawer(self, trained: Trained, settings: Settings) -> Callable[[Path], list[Figure]]:
        """Draws the figures of the report below a folder."""

    @staticmethod
    def curve(name: str) -> str:
        """What an entry of a record is called with the tracker."""
        return name


def tokenise(
    pretraining: Pretraining, source: Source, plan: ShardPlan, config: TrainingConfig, split: str | None, job: OpenJob
) -> tuple[TokenParts, StageResult]:
    """Stage one: OUTPUT/tokens, resumable on its own.

    Raises:
        Refused: NO_TRAINING_ROWS, or as `store_tokens`.
    """
    split_rows = partial(
        SplitRows, config.seed, config.validation_fraction, group=config.group, split=split, labels=pretraining.columns
    )
    parts, result = store_tokens(
        source, pretraining.start, config.seed, plan.shards, split_rows, below(job.output.uri, TOKENS),
        {**plan.run, "job": f"pretrain {TOKENS}"}, workers=config.workers,
    )  # fmt: skip
    if not sum(parts.count(TRAIN)):
        raise Refused("NO_TRAINING_ROWS", f"none of the {pretraining.noun} is left to train on: see "
                      "tokens/quarantine.jsonl, and --validation_fraction")  # fmt: skip
    return parts, result


def left_out(parts: TokenParts, pretraining: Pretraining) -> list[str]:
    """A warning where rows belong to no part."""
    if not parts.left_out:
        return []
    lacking = f" or have no {' or '.join(pretraining.columns)}" if pretraining.columns else ""
    return [f"{parts.left_out:,} {pretraining.noun} belong to no part of --split{lacking}: they were left out."]


def settings_of(config: TrainingConfig, rows: int) -> Settings:
    """How to train on so many rows."""
    steps = config.total_steps(rows)
    same = ("lr", "schedule", "weight_decay", "clip", "log_every", "checkpoint_every", "max_seconds", "seed")
    # A warmup that was asked for may take longer: small CLIPs learn best where it takes half of all steps.
    warmup = min(config.warmup, steps if "warmup" in config.model_fields_set else steps // 10)
    return Settings(
        steps=steps, batch_size=min(config.batch_size, rows), warmup=warmup,
        **{name: getattr(config, name) for name in same},
    )  # fmt: skip
