"""Every job that learns: rows to tokens, tokens to a trained network, and what its task makes of it.

OUTPUT/tokens/       rows as the network reads them, in their parts; resumable on its own, shared by all seeds
OUTPUT/train/        checkpoints of the training
OUTPUT/checkpoint/   the network that was kept

What is learned is a `training.task.Task`; nothing here knows one by name. Searches and ablations take `prepare`,
`recipe_of` and `conclude` apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import Any

from xfm.core.config import fingerprint
from xfm.core.errors import Refused
from xfm.core.parts import TRAIN
from xfm.core.storage import below
from xfm.core.task import TaskSettings
from xfm.engine.columns import check_columns, columns_of, with_columns
from xfm.engine.learn_config import LearnConfig
from xfm.engine.planning import ShardPlan, plan_shards
from xfm.engine.session import OpenJob
from xfm.engine.stage import TOKENS, StageResult, store_tokens
from xfm.engine.train import train
from xfm.engine.train_in_task import train_alone
from xfm.engine.train_watch import track_step
from xfm.training.config import settings_of
from xfm.training.learner import Recipe
from xfm.training.settings import Settings, Trained
from xfm.training.task import ExtraSource, Task, TaskContext, TrainingInputs, TrainingRun
from xfm.training.tokens import TokenParts, TokenStore

HELD_OUT = ("split", "validation", "test", "carve", "group", "split_seed")  # what says which part a row belongs to


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows that are ready to be trained on."""

    plan: ShardPlan  # of the job; its run states rows and split
    parts: TokenParts  # the tokens
    rows: Any  # their classes or targets, as the task reads them; None where it has none
    extra: Mapping[str, TokenParts]  # tokens of the task's further sources, by name
    tokens: StageResult  # what the stage did


def class_of(settings: TaskSettings) -> type[Task]:
    """The class that learns what a section `task` describes."""
    module, _, name = settings.task.partition(":")
    found: type[Task] = getattr(import_module(module), name)
    return found


def task_of(config: LearnConfig, *, has_test: bool = True) -> Task:
    """What the section `task` stands for.

    Raises:
        Refused: source, backbone and task do not go together.
    """
    return class_of(config.task)(
        TaskContext(
            settings=config.task, training=config, source=config.source, backbone=getattr(config, "backbone", None),
            forgetting=getattr(config, "forgetting", None), uri=config.output, record=config.recipe(),
            has_test=has_test,
        )
    )  # fmt: skip


def all_columns(config: LearnConfig, task: Task) -> tuple[str, ...]:
    """Columns that rows must bring: those of the task, of split and group, and those that the network reads."""
    named = (*task.columns, config.split, config.group, *columns_of(task.start))
    return tuple(dict.fromkeys(name for name in named if name))


def plan_learning(config: LearnConfig) -> ShardPlan:
    """Lists the source, with the columns that the job needs, and checks it against the network.

    Raises:
        Refused: NO_COLUMN, or as `task_of` and `plan_shards`.
    """
    task = task_of(config)
    columns = all_columns(config, task)
    source = with_columns(config.source, columns)
    plan = plan_shards(config.job, config, source, task.start)
    check_columns(source, columns)
    return plan


def token_recipe(config: LearnConfig, plan: ShardPlan, job: str) -> dict[str, Any]:
    """What stored tokens depend on: of the network only what tokenising takes, its `token_fields` where it names any.
    Tokens of another `job` are not taken for its own."""
    task = task_of(config)
    reader: Any = task.start
    weights = plan.weights
    if (fields := getattr(reader, "token_fields", None)) is not None:
        reader = type(reader)(**{name: getattr(reader, name) for name in fields})
        weights = reader.identity()
    recipe = config.recipe()
    own = {name: recipe[name] for name in ("source", *HELD_OUT)} | {
        "backbone": reader.recipe(), "columns": list(all_columns(config, task)), "required": list(task.required),
        "rows": task.split_rows.__name__,
    }  # fmt: skip
    return {"job": f"{job} {TOKENS}", "config": own, "weights": weights, "data": plan.run["recipe"]["data"]}


def prepare(config: LearnConfig, plan: ShardPlan, uri: str, *, job: str = "", has_test: bool = True) -> Prepared:
    """Stage one: tokens in URI/tokens, and which of them are trained on, chosen on and scored.

    Args:
        uri: where the tokens go; jobs that share the recipe of the tokens may share them.
        job: whose tokens they are; by default those of the config's job.
        has_test: False stores no test rows, and none of the task's further sources.

    Raises:
        Refused: the columns, the split or the classes cannot be used, or URI/tokens holds other rows.
    """
    task, job = task_of(config, has_test=has_test), job or config.job
    split_rows = partial(
        task.split_rows, config.split_seed, config.validation, config.test, config.group, split=config.split,
        labels=task.required, carve=config.carve, has_test=has_test,
    )  # fmt: skip
    parts, result = store_tokens(
        with_columns(config.source, all_columns(config, task)), task.start, config.split_seed, plan.shards, split_rows,
        below(uri, TOKENS), {**plan.run, "job": f"{job} {TOKENS}", "recipe": token_recipe(config, plan, job)},
        workers=config.workers,
    )  # fmt: skip
    if not sum(parts.count(TRAIN)):
        raise Refused("NO_TRAINING_ROWS", f"none of the {task.noun} is left to train on: see "
                      "tokens/quarantine.jsonl, --split, --validation and --test")  # fmt: skip
    rows = task.rows(TokenStore(parts))
    run = plan.run
    if rows is not None:
        recipe = plan.run["recipe"] | rows.settled()
        run = {**plan.run, "recipe": recipe, "cells_by_label": rows.label_digests()}
    further = task.extra_sources() if has_test else {}
    extra = {name: _extra(config, task, plan, name, uri, each) for name, each in further.items()}
    return Prepared(ShardPlan(plan.shards, plan.genes, run), parts, rows, extra, result)


def _extra(config: LearnConfig, task: Task, plan: ShardPlan, name: str, uri: str, extra: ExtraSource) -> TokenParts:
    """URI/NAME: the rows of a further source, none of them held out."""
    source = with_columns(extra.source, extra.columns)
    check_columns(source, extra.columns)
    job = f"{config.job} {name}"
    recipe = {
        "job": job, "weights": plan.weights, "columns": list(extra.columns),
        "source": extra.source.recipe(), "data": source.identity(),  # type: ignore[attr-defined]
    }  # fmt: skip
    parts, _ = store_tokens(
        source, task.start, config.split_seed, source.shards(), partial(task.split_rows, config.split_seed, 0.0),
        below(uri, name), {**plan.run, "job": job, "recipe": recipe}, workers=config.workers, stage=name,
    )  # fmt: skip
    if not sum(parts.count(TRAIN)):
        raise Refused("NO_ROWS", f"--{name}: none of its rows can be used, see {name}/quarantine.jsonl")
    return parts


def recipe_of(config: LearnConfig, prepared: Prepared, *, has_test: bool = True) -> tuple[Recipe, Settings]:
    """What is trained, and how. `config` may differ from the one that prepared the rows in what tokens do not depend
    on: then the network is not the one that was planned.

    Raises:
        Refused: rows and network do not go together, or as `settings_of`.
    """
    task = task_of(config, has_test=has_test)
    settings = settings_of(config, task.epoch_rows(prepared.parts, prepared.rows))
    planned, asked = prepared.plan.run["recipe"]["config"], config.recipe()
    described_by = ("backbone",) if config.task.starts_from == "backbone" else ("task", "seed")
    is_planned = all(asked[name] == planned[name] for name in described_by)
    identity = prepared.plan.weights if is_planned else task.start.identity()
    given = TrainingInputs(prepared.parts, prepared.rows, prepared.extra, settings, identity)
    return task.recipe(given), settings


def learn(config: LearnConfig, prepared: Prepared, job: OpenJob, *, in_this_task: bool = False) -> int:
    """Trains, or continues, and publishes; returns the exit code.

    Args:
        in_this_task: train in this very process, as one worker would, instead of on Ray Train.
    """
    task = task_of(config)
    recipe, settings = recipe_of(config, prepared)
    on_record = partial(track_step, job.tracker, name=task.curve)
    if in_this_task:
        trained = train_alone(recipe, settings, job.output.uri, on_record, threads=config.threads)
    else:
        trained = train(
            recipe, settings, job.output.uri, on_record, workers=config.workers, gpus=config.gpus,
            threads=config.threads, job=config.job, unit=task.noun,
        )  # fmt: skip
    return conclude(config, prepared, recipe, settings, trained, job)


def conclude(
    config: LearnConfig, prepared: Prepared, recipe: Recipe, settings: Settings, trained: Trained, job: OpenJob
) -> int:
    """Publishes checkpoint, tables, report and figures of what was trained; returns the exit code."""
    task, parts = task_of(config), prepared.parts
    result = task.result(
        recipe,
        TrainingRun(
            trained=trained, settings=settings, parts=parts, rows=prepared.rows, extra=prepared.extra,
            run=prepared.plan.run, genes=prepared.plan.genes, refused=prepared.tokens.refused,
        ),
    )  # fmt: skip
    if result.checkpoint is not None:
        job.publish_checkpoint(result.checkpoint.kind, result.checkpoint.write)
    for name, table in result.tables.items():
        job.publish_table(name, table)
    report = result.report
    warnings = [*config.notes, *report.warnings, *(left_out(parts, task) if prepared.rows is None else [])]
    rows = sum(map(sum, parts.sizes)) + parts.left_out
    return job.finish(
        report.model_copy(update={"job": config.job, "warnings": list(dict.fromkeys(warnings))}), result.draw,
        rows=rows, refusals=prepared.tokens.quarantined,
    )  # fmt: skip


def left_out(parts: TokenParts, task: Task) -> list[str]:
    """A warning where rows belong to no part."""
    if not parts.left_out:
        return []
    lacking = f" or have no {' or '.join(task.required)}" if task.required else ""
    return [f"{parts.left_out:,} {task.noun} belong to no part of --split{lacking}: they were left out."]


def shared_tokens(config: LearnConfig, plan: ShardPlan) -> str:
    """A fingerprint of the tokens: jobs that have it in common may share them."""
    return fingerprint(token_recipe(config, plan, config.job))


def planned_as(plan: ShardPlan, prepared: Prepared) -> Prepared:
    """Shared rows with the plan of one of the jobs that share them."""
    found = prepared.plan.run
    run = {**plan.run, "recipe": found["recipe"] | plan.run["recipe"]}
    run |= {"cells_by_label": found["cells_by_label"]} if "cells_by_label" in found else {}
    return replace(prepared, plan=ShardPlan(plan.shards, plan.genes, run))
