"""Classification as a kind of fine-tuning: its recipe, its checkpoint, its scores and report."""

from pathlib import Path

from xfm.core.parts import TRAIN
from xfm.engine.finetune import Prepared, settings_of
from xfm.engine.finetune_config import FinetuneConfig
from xfm.engine.session import OpenJob
from xfm.judging.classifier_scores import prediction_table, score_table
from xfm.tasks.classification.checkpoint import about_checkpoint, write_classifier
from xfm.tasks.classification.recipe import ClassificationRecipe
from xfm.tasks.classification.report import drawer, finetune_report
from xfm.training.settings import Settings, Trained

SCORES, PREDICTIONS = "scores.parquet", "predictions.parquet"


class ClassificationKind:
    """See `engine.finetune.Kind`."""

    def make(self, config: FinetuneConfig, prepared: Prepared) -> tuple[ClassificationRecipe, Settings]:
        """What is trained, and how."""
        recipe = ClassificationRecipe(
            config.backbone, config.task, prepared.labelled.label.classes, prepared.parts, config.batch_size,
            config.batch_tokens, config.seed, config.split_seed, prepared.plan.weights,
        )  # fmt: skip
        return recipe, settings_of(config, prepared.parts)

    def conclude(
        self,
        config: FinetuneConfig,
        prepared: Prepared,
        recipe: ClassificationRecipe,
        trained: Trained,
        job: OpenJob,
    ) -> int:
        """Writes checkpoint, scores, predictions and report; returns the exit code."""
        labelled, settings = prepared.labelled, settings_of(config, prepared.parts)
        rows = sum(prepared.parts.count(TRAIN))
        steps = rows // min(config.batch_size, rows)
        write_checkpoint(config, recipe, trained, job)
        scores = score_table(trained.outcome, labelled, config.task.mode, f"epoch {trained.best_step / steps:g}")
        job.publish_table(SCORES, scores.drop_columns(["predicted"]))
        job.publish_table(PREDICTIONS, prediction_table(trained.outcome, labelled))
        report = finetune_report(
            trained, settings, steps, config.task, labelled, scores, prepared.plan.run, notes=config.notes,
            refused=prepared.tokens.refused,
        )  # fmt: skip
        return job.finish(
            report, drawer(trained.history, labelled, trained.outcome), rows=len(labelled.judged.rows),
            refusals=prepared.tokens.quarantined,
        )  # fmt: skip


KIND = ClassificationKind()


def write_checkpoint(config: FinetuneConfig, recipe: ClassificationRecipe, trained: Trained, job: OpenJob) -> None:
    """OUTPUT/checkpoint, registered with the tracker."""
    kind, classifier = str(config.backbone.kind), recipe.trained(trained.weights)

    def write(folder: Path) -> str:
        write_classifier(
            folder, classifier, config.backbone, config.task, recipe.classes, seed=config.seed,
            training=config.recipe(),
        )  # fmt: skip
        return about_checkpoint(config.task, recipe.classes, kind)

    job.publish_checkpoint(kind, write)
