"""Fine-tuning as a search sees it: its rows without the test rows, and what each trial trains."""

from collections.abc import Mapping
from typing import Any

from xfm.core.errors import Refused
from xfm.engine.finetune import Prepared, kind_of, split_tokens
from xfm.engine.finetune_config import FinetuneConfig
from xfm.engine.planning import ShardPlan
from xfm.engine.search_space import build, with_values
from xfm.engine.settings import UsageError
from xfm.engine.tune import without_test
from xfm.loops.evaluation.nouns import noun_of
from xfm.loops.training.learner import Recipe
from xfm.loops.training.settings import VALIDATION, Settings
from xfm.loops.training.tokens import TokenStore
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
    parts, result = split_tokens(config, plan, uri, "tune", SplitWithoutTest)
    parts = without_test(parts)
    labelled = searched_rows(
        TokenStore(parts), config.task.label, config.group, seed=config.split_seed,
        noun=noun_of(config.source.schema.names),
    )  # fmt: skip
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
