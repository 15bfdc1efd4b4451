"""Classification as a task: classes of a column, told by a head on any backbone."""

from functools import partial
from pathlib import Path
from typing import ClassVar

from xfm.core.backbone import Backbone
from xfm.judging.classifier_scores import PREDICTIONS, SCORES, prediction_table, score_table
from xfm.judging.labelled_task import LabelledTask
from xfm.models.headed import HeadedBackbone
from xfm.models.headed_checkpoint import how_to_read, read_headed
from xfm.tasks.classification.learner import ClassificationRecipe
from xfm.tasks.classification.report import draw, finetune_report
from xfm.tasks.classification.settings import Classification
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
        scores = score_table(trained.outcome, run.rows, task.mode, f"epoch {trained.best_step / run.steps_per_epoch:g}")
        classifier, kind = recipe.trained(trained.weights), str(context.backbone.kind)

        def write(folder: Path) -> str:
            recipe.write(folder, classifier, context.record)
            return about_checkpoint(task, recipe.classes, kind)

        return Result(
            checkpoint=Checkpoint(kind, write),
            report=finetune_report(run, task, scores),
            draw=partial(draw, trained.history, run.rows, trained.outcome),
            tables={
                SCORES: scores.drop_columns(["predicted"]), PREDICTIONS: prediction_table(trained.outcome, run.rows)
            },
        )  # fmt: skip


def read_classifier(folder: Path, backbone: Backbone) -> tuple[HeadedBackbone, tuple[str, ...]]:
    """The classifier of a folder on a backbone that was read from it, and its classes; in evaluation mode."""
    headed, about = read_headed(folder, backbone)
    return headed, tuple(about["classes"])


def about_checkpoint(task: Classification, classes: tuple[str, ...], kind: str) -> str:
    """A description for people."""
    shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    told = f"{kind} fine-tuned ({task.mode}) to tell {task.label}: {shown}"
    return f"{told}. {how_to_read(kind)}; --predictions adds its classes"
