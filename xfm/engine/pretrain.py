"""What pretraining jobs have in common: rows to tokens, settings, curves, and a checkpoint that a backbone reads.

What is learned from the tokens is a `Pretraining`: `pretrain_masked.py` for cells, `pretrain_contrastive.py` for
pictures and captions.
"""

import hashlib
import logging
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

from xfm.core.backbone import BackboneConfig
from xfm.core.errors import Refused
from xfm.core.report import Figure, Report
from xfm.core.source import Source
from xfm.core.storage import below
from xfm.core.tokenizer import Tokenizer
from xfm.core.tracker import Tracker
from xfm.engine.output import Output
from xfm.engine.planning import ShardPlan
from xfm.engine.session import OpenJob, local_folder
from xfm.engine.stage import StageResult, run_stage
from xfm.engine.training_config import TrainingConfig
from xfm.loops.training.learner import Recipe
from xfm.loops.training.settings import VALIDATION, Settings, Trained
from xfm.loops.training.tokens import TRAIN, SplitRows, TokenParts, token_parts

logger = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
SMALL = 8  # so few shards need no second process to hand their tokens on


class Pretraining(ABC):
    """One way to pretrain: what it starts from, learns, writes and reports."""

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
    def write(self, weights: Mapping[str, Any], folder: Path, *, replace: bool) -> tuple[str, str]:
        """The checkpoint; its kind of backbone, and a line about it for people."""

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


@dataclass(frozen=True, slots=True)
class ForTraining:
    """As much of a backbone's recipe as tokenising takes, for rows that are kept between epochs."""

    backbone: BackboneConfig

    def tokenizer(self, seed: int) -> Tokenizer:
        """Of the backbone, for training."""
        return self.backbone.tokenizer(seed).for_training()


def tokenise(
    pretraining: Pretraining, source: Source, plan: ShardPlan, config: TrainingConfig, split: str | None, job: OpenJob
) -> tuple[TokenParts, StageResult]:
    """Stage one: OUTPUT/tokens, resumable on its own.

    Raises:
        Refused: NO_TRAINING_ROWS.
    """
    shards, columns = plan.shards, pretraining.columns

    def build(_device: str) -> Callable[[], SplitRows]:
        return partial(
            SplitRows, config.seed, config.validation_fraction, group=config.group, split=split, labels=columns
        )

    workers = 1 if len(shards) <= SMALL else config.workers
    with Output(below(job.output.uri, "tokens"), {**plan.run, "job": "pretrain tokens"}, joint=True) as output:
        result = run_stage(
            source, cast(BackboneConfig, ForTraining(pretraining.start)), config.seed, shards, build, output,
            stage="tokens", workers=workers, gpus=0, attempt=job.attempt,
        )  # fmt: skip
        parts = token_parts(output.uri, [shard.key for shard in shards if shard.key in output.committed])
    if not sum(parts.count(TRAIN)):
        raise Refused("NO_TRAINING_ROWS", f"none of the {pretraining.noun} is left to train on: see "
                      "tokens/quarantine.jsonl, and --validation_fraction")  # fmt: skip
    return parts, result


def settings_of(config: TrainingConfig, rows: int) -> Settings:
    """How to train on so many rows."""
    steps = config.total_steps(rows)
    same = ("batch_size", "lr", "schedule", "weight_decay", "clip", "log_every", "checkpoint_every", "max_seconds",
            "seed")  # fmt: skip
    return Settings(
        steps=steps, warmup=min(config.warmup, steps // 10), **{name: getattr(config, name) for name in same}
    )


def write_checkpoint(job: OpenJob, pretraining: Pretraining, weights: Mapping[str, Any]) -> None:
    """OUTPUT/checkpoint, which a backbone reads; registered with the tracker."""
    folder = local_folder(job.output.uri)
    if folder is not None:
        kind, about = pretraining.write(weights, folder / "checkpoint", replace=True)
        job.register(kind, folder / "checkpoint", _sha256(folder / "checkpoint" / WEIGHTS), about)
        return
    with tempfile.TemporaryDirectory() as temporary:
        written = Path(temporary) / "checkpoint"
        kind, about = pretraining.write(weights, written, replace=False)
        for file in sorted(written.iterdir(), reverse=True):
            job.output.write_bytes(f"checkpoint/{file.name}", file.read_bytes())
        job.register(kind, below(job.output.place, "checkpoint"), _sha256(written / WEIGHTS), about)


def track_step(curve: Callable[[str], str], tracker: Tracker, record: Mapping[str, float]) -> None:
    """One record of the training loop, as curves of two groups: train and validation.

    Args:
        curve: what an entry is called with the tracker.
        tracker: of the job.
        record: see `loops.training.settings`.
    """
    curves = {}
    for name, value in record.items():
        plain = name.removeprefix(VALIDATION)
        if name != "step":
            curves[f"{'train' if plain == name else 'validation'}/{curve(plain)}"] = value
    tracker.metrics(curves, step=int(record["step"]))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
