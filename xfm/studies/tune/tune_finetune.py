"""Fine-tuning as a search sees it (`tune_searched.Kind`)."""

from dataclasses import dataclass
from typing import Any

from xfm.core.parts import TRAIN
from xfm.engine.finetune import Prepared, kind_of, plan_finetuning, split_tokens
from xfm.engine.finetune_config import FinetuneConfig
from xfm.engine.planning import ShardPlan
from xfm.judging.row_noun import noun_of
from xfm.studies.tune.rows import SplitWithoutTest, searched_rows, without_test
from xfm.studies.tune.trials import Aim
from xfm.training.learner import Recipe
from xfm.training.settings import VALIDATION, Settings
from xfm.training.tokens import TokenStore

# All trials are compared on the same rows and tokens, which are made once.
ROWS = ("source", "backbone", "forgetting", "split", "validation", "test", "carve", "group", "split_seed")
ROWS_OF_TASK = ("kind", "label", "attribute", "within", "classes", "shots")
AFTERWARDS = ("shares", "forgetting_label", "forgetting_classes", "forgetting_templates")  # of a task
SAME_ROWS = (
    "cannot be searched: all trials must train on the same tokens and be compared on the same rows. Run a search for "
    "each value, and put their best settings side by side with jobs/compare.py"
)


@dataclass(frozen=True, slots=True)
class FinetuneSearch:
    """See `tune_searched.Kind`."""

    word: str = "finetune"
    title: str = "fine-tuning"
    # What adapting makes a network forget is scored once, not in every trial.
    others: tuple[str, ...] = ("output", "experiment", "dry_run", "seeds", "forgetting")
    job: type[FinetuneConfig] = FinetuneConfig

    def why_not(self, field: str) -> str | None:
        """See `tune_searched.Kind`."""
        first, _, rest = field.partition(".")
        name = rest.partition(".")[0]
        if first in ROWS or (first == "task" and name in ROWS_OF_TASK):
            return SAME_ROWS
        if first == "task" and name in AFTERWARDS:
            return "is used after training alone, which a search does not look at"
        return None

    def watched(self, config: FinetuneConfig) -> str:
        """See `tune_searched.Kind`."""
        return f"{'-' if config.watch == 'loss' else ''}{VALIDATION}{config.watch}"

    def watch(self, aim: Aim) -> str:
        """See `tune_searched.Kind`."""
        return aim.metric.removeprefix(VALIDATION)

    def plan(self, config: FinetuneConfig) -> ShardPlan:
        """See `tune_searched.Kind`."""
        return plan_finetuning(config)

    def prepare(self, config: FinetuneConfig, plan: ShardPlan, uri: str) -> Prepared:
        """See `tune_searched.Kind`."""
        parts, result = split_tokens(config, plan, uri, "tune", SplitWithoutTest)
        parts = without_test(parts, "give finetune.validation a share")
        labelled = searched_rows(
            TokenStore(parts), config.task.label, config.group, seed=config.split_seed,
            noun=noun_of(config.source.schema.names), also_read=getattr(config.task, "columns", ()),
        )  # fmt: skip
        return Prepared(plan, parts, labelled, result)

    def make(self, config: FinetuneConfig, prepared: Prepared) -> tuple[Recipe, Settings]:
        """See `tune_searched.Kind`."""
        return kind_of(config).make(config, prepared)

    def pass_rows(self, recipe: Any, prepared: Prepared) -> int:
        """All training rows, or as many as a recipe that draws few `shots` takes."""
        return len(recipe.shots()[0]) if hasattr(recipe, "shots") else sum(prepared.parts.count(TRAIN))


KIND = FinetuneSearch()
