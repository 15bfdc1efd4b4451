"""Classification as a task: classes of a column, told by a head on any backbone."""

from pathlib import Path
from typing import ClassVar

from xfm.core.parts import TRAIN
from xfm.judging.classifier_scores import PREDICTIONS, SCORES, prediction_table, score_table
from xfm.judging.labelled_task import LabelledTask
from xfm.tasks.classification.checkpoint import about_checkpoint, write_classifier
from xfm.tasks.classification.recipe import ClassificationRecipe
from xfm.tasks.classification.report import drawer, finetune_report
from xfm.training.task import Checkpoint, Result, TrainingInputs, TrainingRun


class ClassificationTask(LabelledTask):
    """Telling the classes of a column."""

    fixed: ClassVar[frozenset[str]] = frozenset({"kind", "label"})

    def recipe(self, given: TrainingInputs) -> ClassificationRecipe:
        """Head and network, trained on the rows that have a class."""
        context, training = self.context, self.context.training
        return ClassificationRecipe(
            context.backbone, context.settings, given.parts, given.settings.batch_size, training.batch_tokens,
            training.seed, training.split_seed, given.identity, given.rows.label.classes,
        )  # fmt: skip

    def result(self, recipe: ClassificationRecipe, run: TrainingRun) -> Result:
        """Network and head; scores beside guesses, and the prediction of each validation and test row."""
        context, task, trained = self.context, recipe.task, run.trained
        steps = sum(run.parts.count(TRAIN)) // run.settings.batch_size
        scores = score_table(trained.outcome, run.rows, task.mode, f"epoch {trained.best_step / steps:g}")
        classifier, kind = recipe.trained(trained.weights), str(context.backbone.kind)

        def write(folder: Path) -> str:
            write_classifier(
                folder, classifier, context.backbone, task, recipe.classes, seed=recipe.seed, training=context.record
            )
            return about_checkpoint(task, recipe.classes, kind)

        return Result(
            checkpoint=Checkpoint(kind, write),
            report=finetune_report(
                trained, run.settings, steps, task, run.rows, scores, run.run, refused=run.refused
            ),
            draw=drawer(trained.history, run.rows, trained.outcome),
            tables={
                SCORES: scores.drop_columns(["predicted"]), PREDICTIONS: prediction_table(trained.outcome, run.rows)
            },
        )  # fmt: skip
