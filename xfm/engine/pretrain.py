"""What pretraining jobs have in common: rows to tokens, settings, training, and a checkpoint that a backbone reads.

What is learned from the tokens is a `Pretraining`: `pretrain_masked.py` for cells, `pretrain_contrastive.py` for
pictures and captions, `pretrain_alignment.py` for cells' embeddings and words. `pretrain` is the whole job; searches
and ablations take `prepare`, `make` and `conclude` apart.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from xfm.core.backbone import BackboneConfig
from xfm.core.errors import Refused
from xfm.core.parts import TRAIN, VALIDATION
from xfm.core.report import Figure, Report
from xfm.core.storage import below
from xfm.engine.columns import check_columns, with_columns
from xfm.engine.planning import ShardPlan, plan_shards
from xfm.engine.pretrain_config import PretrainConfig
from xfm.engine.session import OpenJob
from xfm.engine.stage import StageResult
from xfm.engine.tokens import TOKENS, store_tokens
from xfm.engine.train import train
from xfm.engine.train_watch import track_step
from xfm.engine.training_config import TrainingConfig
from xfm.training.learner import Recipe
from xfm.training.settings import Settings, Trained
from xfm.training.tokens import SplitRows, TokenParts

logger = logging.getLogger(__name__)

JOB = "pretrain"
# What a kind of task is learned by: a class that takes (task, source, config).
KINDS = {
    "alignment": "xfm.engine.pretrain_alignment:AlignmentPretraining",
    "contrastive": "xfm.engine.pretrain_contrastive:ContrastivePretraining",
    "masked_expression": "xfm.engine.pretrain_masked:MaskedPretraining",
}


class Pretraining(ABC):
    """One way to pretrain: what it starts from, learns, writes and reports."""

    kind: ClassVar[str]
    """Of the backbone that reads the checkpoint."""
    noun: ClassVar[str]
    """What rows are called."""
    columns: tuple[str, ...] = ()
    """Columns that every row must have, beside what the backbone reads."""
    carried: tuple[str, ...] = ()
    """Columns that a source which has a choice carries along without being asked."""

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
    def settle(self, recipe: Any) -> None:
        """Takes over what `recipe` settled, in another object or at another time: then `write` may follow."""

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


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows that are ready to be trained on.

    Attributes:
        plan: of the job.
        parts: the tokens.
        tokens: what the stage did.
    """

    plan: ShardPlan
    parts: TokenParts
    tokens: StageResult

    @property
    def rows(self) -> tuple[int, int]:
        """Trained on, and held out for validation."""
        return sum(self.parts.count(TRAIN)), sum(self.parts.count(VALIDATION))


def pretraining_of(config: PretrainConfig) -> Pretraining:
    """What the section `task` stands for.

    Raises:
        Refused: the source or the checkpoint does not go with it.
    """
    module, _, name = KINDS[config.task.kind].partition(":")
    made: Pretraining = getattr(import_module(module), name)(config.task, config.source, config)
    return made


def plan_pretraining(config: PretrainConfig) -> ShardPlan:
    """Lists the source, with the columns that the job needs, and checks it against the network.

    Raises:
        Refused: NO_COLUMN, or as `pretraining_of` and `plan_shards`.
    """
    pretraining = pretraining_of(config)
    source = with_columns(config.source, pretraining.carried)
    plan = plan_shards(JOB, config, source, pretraining.start)
    check_columns(source, pretraining.carried)
    return plan


def token_recipe(config: PretrainConfig, plan: ShardPlan) -> dict[str, Any]:
    """What stored tokens depend on: of the network only what tokenising takes, its `token_fields` where it names any.

    Args:
        config: of the job.
        plan: of `plan_pretraining`.
    """
    pretraining = pretraining_of(config)
    reader: Any = pretraining.start
    fields = getattr(reader, "token_fields", None)
    weights = plan.weights
    if fields is not None:
        reader = type(reader)(**{name: getattr(reader, name) for name in fields})
        weights = reader.identity()
    same = ("source", "split", "validation_fraction", "group", "seed")
    recipe = config.recipe()
    own = {name: recipe[name] for name in same} | {"backbone": reader.recipe()}
    own |= {"columns": list(pretraining.columns), "carried": list(pretraining.carried)}
    return {"job": f"{JOB} {TOKENS}", "config": own, "weights": weights, "data": plan.run["recipe"]["data"]}


def prepare(
    config: PretrainConfig,
    plan: ShardPlan,
    uri: str,
    *,
    job: str = JOB,
    split: type[SplitRows] = SplitRows,
    recipe: Mapping[str, Any] | None = None,
) -> Prepared:
    """Stage one: URI/tokens, resumable on its own.

    Args:
        config: of the job.
        plan: of `plan_pretraining`.
        uri: where the tokens go; jobs that share the recipe of the tokens may share them.
        job: whose tokens they are; those of another one are not taken for its own.
        split: what sorts rows into parts.
        recipe: of the tokens; by default the job's, and `token_recipe` where jobs share them.

    Raises:
        Refused: NO_TRAINING_ROWS, or as `store_tokens`.
    """
    pretraining = pretraining_of(config)
    split_rows = partial(
        split, config.seed, config.validation_fraction, group=config.group, split=config.split,
        labels=pretraining.columns,
    )  # fmt: skip
    parts, result = store_tokens(
        with_columns(config.source, pretraining.carried), pretraining.start, config.seed, plan.shards, split_rows,
        below(uri, TOKENS), {**plan.run, "job": f"{job} {TOKENS}", "recipe": recipe or plan.run["recipe"]},
        workers=config.workers,
    )  # fmt: skip
    if not sum(parts.count(TRAIN)):
        raise Refused("NO_TRAINING_ROWS", f"none of the {pretraining.noun} is left to train on: see "
                      "tokens/quarantine.jsonl, and --validation_fraction")  # fmt: skip
    return Prepared(plan, parts, result)


def make(config: PretrainConfig, prepared: Prepared) -> tuple[Recipe, Settings]:
    """What is trained, and how. `config` may differ from the one that prepared the rows in what tokens do not depend
    on."""
    recipe = pretraining_of(config).recipe(prepared.parts, prepared.plan.weights)
    return recipe, settings_of(config, prepared.rows[0])


def pretrain(config: PretrainConfig, plan: ShardPlan, job: OpenJob) -> int:
    """The whole job, or what is left of it, on Ray Train; returns the exit code.

    Args:
        config: of the job.
        plan: of `plan_pretraining`.
        job: opened with `plan.run`.
    """
    prepared = prepare(config, plan, job.output.uri)
    pretraining = pretraining_of(config)
    recipe, settings = make(config, prepared)
    trained = train(
        recipe, settings, job.output.uri, partial(track_step, job.tracker, name=pretraining.curve),
        workers=config.workers, gpus=config.gpus, threads=config.threads, job=JOB, unit=pretraining.noun,
    )  # fmt: skip
    return conclude(config, prepared, recipe, trained, job)


def conclude(config: PretrainConfig, prepared: Prepared, recipe: Recipe, trained: Trained, job: OpenJob) -> int:
    """Writes checkpoint and report; returns the exit code.

    Args:
        config: as given to `make`.
        prepared: the rows.
        recipe: what was trained.
        trained: what came out, here or on Ray Train.
        job: whose OUTPUT it is.
    """
    pretraining = pretraining_of(config)
    pretraining.settle(recipe)
    settings = settings_of(config, prepared.rows[0])
    job.publish_checkpoint(pretraining.kind, partial(pretraining.write, trained.weights))
    report = pretraining.report(trained, settings, prepared.plan, prepared.rows, prepared.tokens.refused)
    report = report.model_copy(update={"warnings": [*report.warnings, *left_out(prepared.parts, pretraining)]})
    return job.finish(report, pretraining.drawer(trained, settings), rows=sum(prepared.rows),
                      refusals=prepared.tokens.quarantined)  # fmt: skip


def left_out(parts: TokenParts, pretraining: Pretraining) -> list[str]:
    """A warning where rows belong to no part."""
    if not parts.left_out:
        return []
    lacking = f" or have no {' or '.join(pretraining.columns)}" if pretraining.columns else ""
    return [f"{parts.left_out:,} {pretraining.noun} belong to no part of --split{lacking}: they were left out."]


def settings_of(config: TrainingConfig, rows: int) -> Settings:
    """How to train on so many rows."""
    steps = config.total_steps(rows)
    same = (
        "lr",
        "schedule",
        "weight_decay",
        "clip",
        "log_every",
        "checkpoint_every",
        "max_seconds",
        "seed",
        "patience",
    )
    # A warmup that was asked for may take longer: small CLIPs learn best where it takes half of all steps.
    warmup = min(config.warmup, steps if "warmup" in config.model_fields_set else steps // 10)
    return Settings(
        steps=steps, batch_size=min(config.batch_size, rows), warmup=warmup, watch=config.watch or "",
        **{name: getattr(config, name) for name in same},
    )  # fmt: skip
