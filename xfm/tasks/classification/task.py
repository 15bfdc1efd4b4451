"""Classification as a task: classes of a column, told by a head on any backbone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from xfm.core.parts import TRAIN
from xfm.judging.classifier_scores import PREDICTIONS, SCORES, name_of, prediction_table, score_table
from xfm.judging.labelled import Labelled, SplitWithContent, labelled_rows
from xfm.judging.row_noun import noun_of
from xfm.tasks.classification.checkpoint import about_checkpoint, write_classifier
from xfm.tasks.classification.recipe import ClassificationRecipe
from xfm.tasks.classification.report import drawer, finetune_report
from xfm.training.settings import Settings
from xfm.training.task import Checkpoint, Result, Task, TrainingRun
from xfm.training.tokens import SplitRows, TokenParts, TokenStore


class ClassificationTask(Task):
    """Telling the classes of a column."""

    fixed: ClassVar[frozenset[str]] = frozenset({"kind", "label"})
    split_rows: ClassVar[type[SplitRows]] = SplitWithContent

    @property
    def noun(self) -> str:
        """Cells, sentences, images: by the columns of the source."""
        return noun_of(self.context.source.schema.names)

    @property
    def columns(self) -> tuple[str, ...]:
        """The label."""
        return (self.context.settings.label,)

    @property
    def scored(self) -> tuple[str, str]:
        """The network after fine-tuning, and the label."""
        return name_of(self.context.settings.mode), self.context.settings.label

    def rows(self, store: TokenStore) -> Labelled:
        """Classes, parts and groups of all rows."""
        context, training = self.context, self.context.training
        return labelled_rows(
            store, context.settings.label, training.group, seed=training.split_seed, resamples=training.bootstrap,
            noun=self.noun, has_test=context.has_test,
        )  # fmt: skip

    def recipe(
        self,
        parts: TokenParts,
        rows: Labelled,
        extra: Mapping[str, TokenParts],
        settings: Settings,
        identity: dict[str, Any],
    ) -> ClassificationRecipe:
        """Head and network, trained on the rows that have a class."""
        del extra
        context, training = self.context, self.context.training
        return ClassificationRecipe(
            context.backbone, context.settings, rows.label.classes, parts, settings.batch_size, training.batch_tokens,
            training.seed, training.split_seed, identity,
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
