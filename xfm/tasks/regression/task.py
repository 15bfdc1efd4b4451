"""Regression as a task: numbers of a column, predicted by a head on any backbone."""

from functools import partial
from pathlib import Path
from typing import ClassVar

from xfm.core.backbone import Backbone
from xfm.judging.classifier_scores import PREDICTIONS, SCORES
from xfm.judging.labelled_task import LabelledTask
from xfm.models.headed import HeadedBackbone
from xfm.models.headed_checkpoint import how_to_read, read_headed
from xfm.tasks.regression.learner import RegressionRecipe
from xfm.tasks.regression.report import draw, regression_report
from xfm.tasks.regression.rows import RegressionRows, Scale, prediction_table, regression_rows, score_table
from xfm.tasks.regression.settings import Regression
from xfm.training.task import Checkpoint, Result, TrainingInputs, TrainingRun
from xfm.training.tokens import TokenStore


class RegressionTask(LabelledTask):
    """Predicting the numbers of a column, the label."""

    fixed: ClassVar[frozenset[str]] = frozenset({"kind", "label"})

    @property
    def scored(self) -> None:
        """Scores of several seeds are put together for classes alone."""

    def rows(self, store: TokenStore) -> RegressionRows:
        """Numbers, parts and groups of all rows."""
        context, training = self.context, self.context.training
        return regression_rows(
            store, context.settings.label, training.group, seed=training.split_seed, resamples=training.bootstrap,
            noun=self.noun, has_test=context.has_test,
        )  # fmt: skip

    def recipe(self, given: TrainingInputs) -> RegressionRecipe:
        """Head and network, trained on the rows that have a number."""
        context, training = self.context, self.context.training
        return RegressionRecipe(
            context.backbone, context.settings, given.parts, given.settings.batch_size, training.batch_tokens,
            training.seed, training.split_seed, given.identity, given.rows.scale,
        )  # fmt: skip

    def result(self, recipe: RegressionRecipe, run: TrainingRun) -> Result:
        """Network and head; scores next to the mean's, and the prediction of each validation and test row."""
        context, task, trained, rows = self.context, recipe.task, run.trained, run.rows
        scores = score_table(trained.outcome, rows, task.mode, f"epoch {trained.best_step / run.steps_per_epoch:g}")
        network, kind = recipe.trained(trained.weights), str(context.backbone.kind)

        def write(folder: Path) -> str:
            recipe.write(folder, network, context.record)
            return about_checkpoint(task, recipe.scale, kind)

        return Result(
            checkpoint=Checkpoint(kind, write),
            report=regression_report(run, task, scores),
            draw=partial(draw, trained.history, rows, trained.outcome),
            tables={
                SCORES: scores.drop_columns(["predicted"]), PREDICTIONS: prediction_table(trained.outcome, rows)
            },
        )  # fmt: skip


def read_regression(folder: Path, backbone: Backbone) -> tuple[HeadedBackbone, Scale]:
    """The regression of a folder on a backbone that was read from it, in evaluation mode.

    Returns:
        The network, whose one output is a standardised number, and the scale: mean + deviation * output is the number.
    """
    headed, about = read_headed(folder, backbone)
    return headed, Scale(about["target"]["mean"], about["target"]["sd"])


def about_checkpoint(task: Regression, scale: Scale, kind: str) -> str:
    """A description for people."""
    return (
        f"{kind} fine-tuned ({task.mode}) to predict {task.label}: {scale.mean:g} + {scale.deviation:g} times the "
        f"output of the head. {how_to_read(kind)}; --predictions adds its numbers"
    )
