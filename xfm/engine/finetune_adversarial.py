"""Telling donors apart, with or without an adversary, as a kind of fine-tuning.

OUTPUT/label_embeddings.parquet   vectors of the words, made once on the driver
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from xfm.core.errors import Refused
from xfm.core.parts import TRAIN
from xfm.core.schema import EMBEDDING
from xfm.core.storage import open_storage
from xfm.engine.finetune import Prepared, settings_of
from xfm.engine.finetune_classification import PREDICTIONS, SCORES
from xfm.engine.finetune_config import FinetuneConfig
from xfm.engine.session import OpenJob
from xfm.judging.classifier_scores import prediction_table
from xfm.judging.labelled import Labelled
from xfm.tasks.adversarial.checkpoint import about_checkpoint, write_adversarial
from xfm.tasks.adversarial.learner import Columns
from xfm.tasks.adversarial.recipe import AdversarialRecipe
from xfm.tasks.adversarial.report import adversarial_report, drawer
from xfm.tasks.adversarial.scores import score_table
from xfm.tasks.adversarial.settings import MISSING, AdversarialClassification
from xfm.tasks.adversarial.warnings import attention_words, cautions
from xfm.training.settings import Settings, Trained
from xfm.training.tokens import TokenParts, TokenStore


class AdversarialKind:
    """See `engine.finetune.Kind`."""

    def make(self, config: FinetuneConfig, prepared: Prepared) -> tuple[AdversarialRecipe, Settings]:
        """What is trained, and how; the words of all rows are encoded here.

        Raises:
            Refused: NO_FUSION, NO_FUSED_FEATURES, ONE_CLASS, or as the backbone's `bank_of` and `start`.
        """
        task, backbone = config.task, config.backbone
        check_backbone(config)
        columns = columns_of(config, prepared.labelled)
        store, settings = TokenStore(prepared.parts), adversarial_settings(config, prepared.parts)
        texts = pa.chunked_array([chunk for each in store.column(columns.text) for chunk in each.chunks])
        recipe = AdversarialRecipe(
            backbone, task, columns, backbone.bank_of(texts.unique().to_pylist(), open_storage(config.output)),
            width_of(store, prepared.parts), prepared.parts, settings.batch_size, settings.steps,
            config.seed, prepared.plan.weights,
        )  # fmt: skip
        recipe.network()  # on the driver, so that weights that do not fit are refused before workers start
        return recipe, settings

    def conclude(
        self, config: FinetuneConfig, prepared: Prepared, recipe: AdversarialRecipe, trained: Trained, job: OpenJob
    ) -> int:
        """Writes checkpoint, scores, predictions and report; returns the exit code."""
        labelled, settings, task = prepared.labelled, adversarial_settings(config, prepared.parts), recipe.task
        rows = sum(prepared.parts.count(TRAIN))
        steps = rows // min(config.batch_size, rows)
        write_checkpoint(config, recipe, trained, job)
        scores = score_table(trained.outcome, labelled, task, f"epoch {trained.best_step / steps:g}")
        job.publish_table(SCORES, scores.drop_columns(["predicted"]))
        job.publish_table(PREDICTIONS, prediction_table(trained.outcome, labelled))
        scheme = getattr(getattr(config.source, "split", None), "scheme", None) if config.split else None
        warnings = cautions(trained, settings, task, labelled, scheme)
        warnings += attention_words(trained.outcome.get("attention"), labelled.judged.noun)
        report = adversarial_report(
            trained, settings, steps, task, labelled, scores, prepared.plan.run, notes=config.notes, warnings=warnings,
            refused=prepared.tokens.refused,
        )  # fmt: skip
        return job.finish(
            report, drawer(trained.history, labelled, trained.outcome), rows=len(labelled.judged.rows),
            refusals=prepared.tokens.quarantined,
        )  # fmt: skip


KIND = AdversarialKind()


def check_backbone(config: FinetuneConfig) -> None:
    """Raises Refused: NO_FUSION, another kind of network; NO_FUSED_FEATURES, an adversary that could teach nothing."""
    task: AdversarialClassification = config.task
    if not hasattr(config.backbone, "bank_of"):
        raise Refused(
            "NO_FUSION",
            f"--task.kind adversarial reads embeddings beside words: --backbone.kind fusion, not "
            f"{config.backbone.kind}. For a head on any other network use --task.kind classification",
        )
    if task.is_adversarial and config.backbone.design == "concat":
        raise Refused(
            "NO_FUSED_FEATURES",
            "--backbone.design concat gives its inputs as they are: there are no weights below the head that could "
            f"unlearn {task.attribute}. Add --no-task.adversary, or use --backbone.design fusion",
        )


def adversarial_settings(config: FinetuneConfig, parts: TokenParts) -> Settings:
    """Against an adversary the weights of the last step are kept, unless --watch or --patience is given."""
    settings, task = settings_of(config, parts), config.task
    watched = not task.is_adversarial or "watch" in config.model_fields_set or config.patience is not None
    return settings if watched else replace(settings, watch="")


def width_of(store: TokenStore, parts: TokenParts) -> int:
    """Numbers of an embedding, of one row."""
    first = next(number for number, sizes in enumerate(parts.sizes) if sum(sizes))
    return int(store.take(np.array([first]), np.array([0]))[EMBEDDING].type.list_size)


def columns_of(config: FinetuneConfig, labelled: Labelled) -> Columns:
    """Where things are in the rows.

    Raises:
        Refused: ONE_CLASS, an adversary needs two classes among training rows.
    """
    task: AdversarialClassification = config.task
    attribute = labelled.also_read(task.attribute)
    classes = () if attribute is None else attribute.classes
    if attribute is not None and task.is_adversarial:
        codes = attribute.codes[labelled.held(TRAIN)]
        found = sorted({classes[code] for code in codes if code != MISSING})
        if len(found) < 2:
            raise Refused("ONE_CLASS", f"--task.attribute {task.attribute}: an adversary needs two known classes among "
                          f"training rows, found {', '.join(found) or 'none'}. Add --no-task.adversary")  # fmt: skip
    (text,) = config.backbone.columns
    return Columns(text, task.label, labelled.label.classes, task.attribute, classes)


def write_checkpoint(config: FinetuneConfig, recipe: AdversarialRecipe, trained: Trained, job: OpenJob) -> None:
    """OUTPUT/checkpoint, registered with the tracker."""
    classifier, backbone = recipe.trained(trained.weights), config.backbone
    training: dict[str, Any] = config.recipe()

    def write(folder: Path) -> str:
        write_adversarial(
            folder, classifier, backbone, recipe.bank, recipe.gene_dim, recipe.task, recipe.columns, training
        )
        return about_checkpoint(recipe.task, recipe.columns.classes)

    job.publish_checkpoint(str(backbone.kind), write)
