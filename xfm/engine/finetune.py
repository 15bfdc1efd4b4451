"""The stages of fine-tuning: rows to tokens, tokens to a trained network, and what its kind of task makes of it.

OUTPUT/tokens/       rows as the network reads them, split; shared by all seeds, resumable on its own
OUTPUT/train/        Ray Train's checkpoints
OUTPUT/checkpoint/   the network that was kept
"""

import logging
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, Protocol

from xfm.core.parts import TRAIN
from xfm.core.storage import below
from xfm.engine.columns import check_columns, with_columns
from xfm.engine.finetune_config import FinetuneConfig
from xfm.engine.planning import ShardPlan, plan_shards
from xfm.engine.resume_check import check_output
from xfm.engine.session import OpenJob
from xfm.engine.stage import StageResult
from xfm.engine.tokens import TOKENS, store_tokens
from xfm.engine.train import train
from xfm.engine.train_watch import track_step
from xfm.judging.labelled import Labelled, SplitWithContent, labelled_rows
from xfm.judging.row_noun import noun_of
from xfm.training.learner import Recipe
from xfm.training.settings import VALIDATION, Settings, Trained
from xfm.training.tokens import SplitRows, TokenParts, TokenStore

logger = logging.getLogger(__name__)

JOB = "finetune"
SETTLED = ("cells", "split", "noun")  # of the recipe: known when the tokens are there
# What a kind of task adds to fine-tuning: a module with `KIND`.
KINDS = {
    "adversarial": "xfm.engine.finetune_adversarial",
    "class_prompts": "xfm.engine.finetune_class_prompts",
    "classification": "xfm.engine.finetune_classification",
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows that are ready to be trained on.

    Attributes:
        plan: of the job; its run states rows and split.
        parts: the tokens.
        labelled: the rows, their classes and their split.
        tokens: what the stage did.
    """

    plan: ShardPlan
    parts: TokenParts
    labelled: Labelled
    tokens: StageResult


class Kind(Protocol):
    """What is done for one kind of task."""

    def make(self, config: FinetuneConfig, prepared: Prepared) -> tuple[Recipe, Settings]:
        """What is trained, and how."""
        ...

    def conclude(self, config: FinetuneConfig, prepared: Prepared, recipe: Any, trained: Trained, job: OpenJob) -> int:
        """Writes checkpoint, scores and report; returns the exit code."""
        ...


def kind_of(config: FinetuneConfig) -> Kind:
    """By the task's `kind`."""
    kind: Kind = import_module(KINDS[config.task.kind]).KIND
    return kind


def plan_finetuning(config: FinetuneConfig) -> ShardPlan:
    """Lists the source, with the columns that the job needs, and checks it against the network.

    Raises:
        Refused: NO_COLUMN, or as `plan_shards`.
    """
    source = with_columns(config.source, config.columns)
    plan = plan_shards(JOB, config, source, config.backbone)
    check_columns(source, config.columns)
    return plan


def prepare(config: FinetuneConfig, plan: ShardPlan, uri: str) -> Prepared:
    """Stage one: tokens in URI/tokens, then who is trained on, chosen on and scored.

    Args:
        config: of the job.
        plan: of `plan_finetuning`.
        uri: where the tokens go; several jobs that share the recipe of the tokens may share them.

    Raises:
        Refused: the columns, the split or the classes cannot be used, or an OUTPUT of another run.
    """
    check_output(config.output, plan.run["recipe"], SETTLED)
    parts, result = split_tokens(config, plan, uri, JOB, SplitWithContent)
    labelled = labelled_rows(
        TokenStore(parts), config.task.label, config.group, seed=config.split_seed, resamples=config.bootstrap,
        noun=noun_of(config.source.schema.names), also_read=getattr(config.task, "columns", ()),
    )  # fmt: skip
    judged = labelled.judged
    found = {"cells": judged.cells_digest(), "split": judged.split_digest(), "noun": judged.noun}
    run = {**plan.run, "recipe": plan.run["recipe"] | found, "cells_by_label": judged.label_digests()}
    return Prepared(ShardPlan(plan.shards, plan.genes, run), parts, labelled, result)


def split_tokens(
    config: FinetuneConfig, plan: ShardPlan, uri: str, job: str, split: type[SplitRows]
) -> tuple[TokenParts, StageResult]:
    """URI/tokens: the rows of a job as its network reads them, in their parts.

    Args:
        config: of the job.
        plan: of `plan_finetuning`.
        uri: above the tokens.
        job: whose tokens they are; those of another one are not taken for its own.
        split: what sorts rows into parts.

    Raises:
        Refused: as `store_tokens`.
    """
    recipe, name = plan.run["recipe"], f"{job} {TOKENS}"
    reader = config.reader
    weights = recipe["weights"] if reader is config.backbone else reader.identity()
    own = {"job": name, "config": config.token_recipe(), "weights": weights, "data": recipe["data"]}
    return store_tokens(
        with_columns(config.source, config.columns), reader, config.split_seed, plan.shards,
        partial(
            split, config.split_seed, config.validation, config.test, config.group, split=config.split,
            carve=config.carve,
        ),
        below(uri, TOKENS), {**plan.run, "job": name, "recipe": own}, workers=config.workers,
    )  # fmt: skip


def finetune(config: FinetuneConfig, prepared: Prepared, job: OpenJob) -> int:
    """Trains, or continues, and reports; returns the exit code."""
    kind = kind_of(config)
    recipe, settings = kind.make(config, prepared)
    trained = train(
        recipe, settings, job.output.uri, partial(track_step, job.tracker), workers=config.workers, gpus=config.gpus,
        threads=config.threads, job=JOB, unit=prepared.labelled.judged.noun,
    )  # fmt: skip
    return kind.conclude(config, prepared, recipe, trained, job)


def settings_of(config: FinetuneConfig, parts: TokenParts) -> Settings:
    """How to train on the training rows of these parts."""
    rows = sum(parts.count(TRAIN))
    batch = min(config.batch_size, rows)
    a_pass = rows // batch
    same = ("lr", "schedule", "weight_decay", "clip", "log_every", "max_seconds", "seed", "patience")
    return Settings(
        steps=config.steps or max(1, round(config.epochs * a_pass)),
        batch_size=batch,
        warmup=round(config.warmup * a_pass),
        checkpoint_every=max(1, round(config.checkpoint_every * a_pass)),
        watch=f"-{VALIDATION}loss" if config.watch == "loss" else f"{VALIDATION}{config.watch}",
        **{name: getattr(config, name) for name in same},
    )
