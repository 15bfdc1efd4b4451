"""Classification as a kind of fine-tuning: its recipe, its checkpoint, its scores and report."""

import hashlib
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from xfm.core.storage import below
from xfm.engine.finetune import Prepared, settings_of
from xfm.engine.finetune_config import FinetuneConfig
from xfm.engine.session import OpenJob, local_folder
from xfm.loops.finetuning.checkpoint import about_checkpoint, write_classifier
from xfm.loops.finetuning.recipe import ClassificationRecipe
from xfm.loops.finetuning.report import drawer, finetune_report
from xfm.loops.finetuning.scores import prediction_table, score_table
from xfm.loops.training.settings import Settings, Trained
from xfm.loops.training.tokens import TRAIN

SCORES, PREDICTIONS, CHECKPOINT = "scores.parquet", "predictions.parquet", "checkpoint"
WEIGHTS = "model.safetensors"


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
        publish_table(job, SCORES, scores.drop_columns(["predicted"]))
        publish_table(job, PREDICTIONS, prediction_table(trained.outcome, labelled))
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
    about = about_checkpoint(config.task, recipe.classes, kind)

    def write(folder: Path) -> str:
        write_classifier(
            folder, classifier, config.backbone, config.task, recipe.classes, seed=config.seed,
            training=config.recipe(),
        )  # fmt: skip
        with (folder / WEIGHTS).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    local = local_folder(job.output.uri)
    if local is not None:
        job.register(kind, local / CHECKPOINT, write(local / CHECKPOINT), about)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / CHECKPOINT
        digest = write(folder)
        for file in sorted((path for path in folder.rglob("*") if path.is_file()), reverse=True):
            job.output.write_bytes(f"{CHECKPOINT}/{file.relative_to(folder)}", file.read_bytes())
        job.register(kind, below(job.output.place, CHECKPOINT), digest, about)


def publish_table(job: OpenJob, name: str, table: pa.Table) -> None:
    """A Parquet file beside the report."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    job.publish(name, sink.getvalue().to_pybytes())
