"""Pretraining as a search sees it (`tune_searched.Kind`)."""

from dataclasses import dataclass, replace
from typing import Any

from xfm.engine.planning import ShardPlan
from xfm.engine.pretrain import Prepared, plan_pretraining, prepare, pretraining_of, settings_of
from xfm.engine.pretrain_config import PretrainConfig
from xfm.studies.tune.rows import SplitWithoutTest, without_test
from xfm.studies.tune.trials import Aim
from xfm.studies.tune.tune_finetune import SAME_ROWS
from xfm.training.learner import Recipe
from xfm.training.settings import Settings

# All trials are compared on the same rows and tokens, which are made once.
ROWS = ("source", "split", "validation_fraction", "validation_cells", "group")
# Of a task: what is read, and what tokens are made of.
ROWS_OF_TASK = (
    "kind", "init", "vocab", "n_bins", "ties", "max_length", "caption", "match", "vocabulary_size", "image_size",
    "text_length", "text_column", "text",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PretrainSearch:
    """See `tune_searched.Kind`."""

    word: str = "pretrain"
    title: str = "pretraining"
    others: tuple[str, ...] = ("output", "experiment", "dry_run")
    job: type[PretrainConfig] = PretrainConfig

    def why_not(self, field: str) -> str | None:
        """See `tune_searched.Kind`."""
        first, _, rest = field.partition(".")
        same = first in ROWS or (first == "task" and rest.partition(".")[0] in ROWS_OF_TASK)
        return SAME_ROWS if same else None

    def watched(self, config: PretrainConfig) -> str | None:
        """See `tune_searched.Kind`."""
        return config.watch

    def watch(self, aim: Aim) -> str:
        """See `tune_searched.Kind`."""
        return aim.watch

    def plan(self, config: PretrainConfig) -> ShardPlan:
        """See `tune_searched.Kind`."""
        return plan_pretraining(config)

    def prepare(self, config: PretrainConfig, plan: ShardPlan, uri: str) -> Prepared:
        """See `tune_searched.Kind`."""
        prepared = prepare(config, plan, uri, job="tune", split=SplitWithoutTest)
        return replace(
            prepared, parts=without_test(prepared.parts, "give pretrain.validation_fraction or pretrain.split")
        )

    def make(self, config: PretrainConfig, prepared: Prepared) -> tuple[Recipe, Settings]:
        """The network has the drawn sizes, so it is not the one that the search was planned with."""
        pretraining = pretraining_of(config)
        recipe = pretraining.recipe(prepared.parts, pretraining.start.identity())
        return recipe, settings_of(config, prepared.rows[0])

    def pass_rows(self, recipe: Any, prepared: Prepared) -> int:  # noqa: ARG002
        """All training rows."""
        return prepared.rows[0]


KIND = PretrainSearch()
