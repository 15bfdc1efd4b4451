"""Regression as a task: numbers of a column, predicted by a head on any backbone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from xfm.core.backbone import Backbone, BackboneConfig
from xfm.core.parts import TRAIN
from xfm.judging.classifier_scores import PREDICTIONS, SCORES
from xfm.judging.labelled_task import LabelledTask
from xfm.models.headed import HeadedBackbone
from xfm.models.headed_checkpoint import how_to_read, read_headed, write_headed
from xfm.tasks.regression.learner import RegressionRecipe
from xfm.tasks.regression.report import drawer, regression_report
from xfm.tasks.regression.rows import RegressionRows, Scale, regression_rows
from xfm.tasks.regression.scores import prediction_table, score_table
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
        steps = sum(run.parts.count(TRAIN)) // run.settings.batch_size
        scores = score_table(trained.outcome, rows, task.mode, f"epoch {trained.best_step / steps:g}")
        network, kind = recipe.trained(trained.weights), str(context.backbone.kind)

        def write(folder: Path) -> str:
            write_regression(
                folder, network, context.backbone, task, recipe.scale, seed=recipe.seed, training=context.record
            )
            return about_checkpoint(task, recipe.scale, kind)

        return Result(
            checkpoint=Checkpoint(kind, write),
            report=regression_report(trained, run.settings, steps, task, rows, scores, run.run, refused=run.refused),
            draw=drawer(trained.history, rows, trained.outcome),
            tables={
                SCORES: scores.drop_columns(["predicted"]), PREDICTIONS: prediction_table(trained.outcome, rows)
            },
        )  # fmt: skip


def write_regression(
    folder: Path,
    regression: HeadedBackbone,
    config: BackboneConfig,
    task: Regression,
    scale: Scale,
    *,
    seed: int,
    training: Mapping[str, Any],
) -> None:
    """Writes the files, see `write_headed`."""
    about = {"target": {"mean": scale.mean, "sd": scale.deviation}, "label": task.label}
    write_headed(folder, regression, config, task, (task.label,), seed=seed, about=about, training=training)


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
        f"output of the head. {how_to_read(kind)}; --predictions adds its "
        f"numbers"
    )
