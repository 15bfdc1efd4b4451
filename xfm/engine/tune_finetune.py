"""Fine-tuning as a search sees it: its rows without the test rows, and what each trial trains."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from xfm.core.errors import Refused
from xfm.core.storage import below
from xfm.engine.finetune import SMALL, TOKENS, ForTraining, Prepared, kind_of, with_columns
from xfm.engine.finetune_config import FinetuneConfig
from xfm.engine.output import Output
from xfm.engine.planning import ShardPlan
from xfm.engine.search_space import build, with_values
from xfm.engine.settings import UsageError
from xfm.engine.stage import run_stage
from xfm.engine.tune import without_test
from xfm.loops.evaluation.nouns import noun_of
from xfm.loops.training.learner import Recipe
from xfm.loops.training.settings import VALIDATION, Settings
from xfm.loops.training.tokens import TokenStore, token_parts
from xfm.loops.tuning.rows import SplitWithoutTest, searched_rows
from xfm.loops.tuning.trials import Aim

# Of a preset, and nothing to a trial. What adapting makes a network forget is scored once, not in every trial.
OTHERS = ("output", "experiment", "dry_run", "seeds", "forgetting")


def config_of(base: Mapping[str, Any], output: str, aim: Aim | None, values: Mapping[str, Any]) -> FinetuneConfig:
    """The job with drawn values.

    Args:
        base: settings of the job that is searched.
        output: of the search.
        aim: what decides which weights are best; None leaves that to the job.
        values: drawn.

    Raises:
        UsageError: there is no such job.
    """
    settings = {name: value for name, value in base.items() if name not in OTHERS}
    if aim is not None:
        settings["watch"] = aim.metric.removeprefix(VALIDATION)
    return build(FinetuneConfig, with_values(settings, values), "--output", output)


def given_job(base: Mapping[str, Any], output: str, metric: str | None) -> tuple[FinetuneConfig, Aim]:
    """The job as it was given, and what is searched for.

    Args:
        base: its settings.
        output: of the search.
        metric: as `Settings.watch`, or None for what the job watches.

    Raises:
        Refused: BAD_SETTINGS, or BAD_METRIC.
    """
    try:
        aim = Aim.of(metric or watched(config_of(base, output, None, {})))
        given = config_of(base, output, aim, {})
    except UsageError as error:
        raise Refused("BAD_SETTINGS", f"finetune: {error}") from None
    if watched(given) != aim.watch:
        better = "higher" if aim.is_lower_better else "lower"
        raise Refused("BAD_METRIC", f"--metric {aim.watch}: the {better} is better, or it is measured under another "
                      f"name; write {watched(given)}")  # fmt: skip
    return given, aim


def watched(config: FinetuneConfig) -> str:
    """What decides by itself, in the form of `Settings.watch`."""
    return f"{'-' if config.watch == 'loss' else ''}{VALIDATION}{config.watch}"


def prepare_search(config: FinetuneConfig, plan: ShardPlan, uri: str) -> Prepared:
    """Tokens of training and validation rows in URI/tokens, shared by all trials.

    Raises:
        Refused: the columns, the split or the classes cannot be used.
    """
    source = with_columns(config.source, config.columns)
    run = {**plan.run, "job": f"tune {TOKENS}", "recipe": {
        "job": f"tune {TOKENS}", "config": config.token_recipe(), "weights": plan.weights,
        "data": plan.run["recipe"]["data"],
    }}  # fmt: skip

    def split(_device: str) -> Callable[[], SplitWithoutTest]:
        return partial(
            SplitWithoutTest, config.split_seed, config.validation, config.test, config.group, split=config.split,
            carve=config.carve,
        )  # fmt: skip

    with Output(below(uri, TOKENS), run, joint=True) as output:
        result = run_stage(
            source, ForTraining(config.backbone), config.split_seed, plan.shards, split, output,  # type: ignore[arg-type]
            stage=TOKENS, workers=1 if len(plan.shards) <= SMALL else config.workers, gpus=0, attempt=output.attempt,
        )  # fmt: skip
        keys = [shard.key for shard in plan.shards if shard.key in output.committed]
        if not keys:
            code, message = next(((each.code, each.message) for each in result.quarantined), ("NO_ROWS", "no rows"))
            raise Refused(code, f"no shard could be read: {message}")
        parts = without_test(token_parts(output.uri, keys))
    labelled = searched_rows(
        TokenStore(parts), config.task.label, config.group, seed=config.split_seed, noun=noun_of(source.schema.names)
    )
    return Prepared(plan, parts, labelled, result)


def trained_of(
    base: Mapping[str, Any], output: str, aim: Aim, prepared: Prepared, values: Mapping[str, Any]
) -> tuple[Recipe, Settings]:
    """What a trial trains, and how.

    Raises:
        UsageError: the values fit no job.
    """
    config = config_of(base, output, aim, values)
    recipe, settings = kind_of(config).make(config, prepared)
    assert settings.watch == aim.watch, settings.watch
    return recipe, settings


def value_of(config: FinetuneConfig, field: str) -> Any:
    """The value of a dotted field; None where the job's kind of section has no such field."""
    value: Any = config
    for name in field.split("."):
        value = getattr(value, name, None)
    return value
