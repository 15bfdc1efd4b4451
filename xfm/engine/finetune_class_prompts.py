"""Class prompts as a kind of fine-tuning: CLIP adapted to a few images, and what that costs on other ones.

OUTPUT/forgetting/   the other images, as the network reads them; shared by all seeds, resumable on its own
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.errors import Refused
from xfm.core.parts import TEST, TRAIN
from xfm.core.storage import below
from xfm.engine.columns import with_columns
from xfm.engine.finetune import JOB, Prepared, settings_of
from xfm.engine.finetune_classification import PREDICTIONS, SCORES
from xfm.engine.finetune_config import FinetuneConfig
from xfm.engine.session import OpenJob
from xfm.engine.tokens import store_tokens
from xfm.judging.classifier_scores import prediction_table
from xfm.judging.eval_set import MISSING, labels_of
from xfm.judging.labelled import CONTENT, Labelled, SplitWithContent, codes_of
from xfm.models.clip.prompts import ClassPrompts
from xfm.models.clip.writing import save_clip
from xfm.tasks.class_prompts.recipe import ClassPromptsRecipe, Images
from xfm.tasks.class_prompts.report import class_prompts_report, drawer
from xfm.tasks.class_prompts.scores import (
    adapted_scores,
    arranged,
    at_share,
    score_table,
    with_all_classes,
)
from xfm.tasks.class_prompts.settings import ClassPromptTuning
from xfm.training.settings import Settings, Trained
from xfm.training.tokens import TokenParts, TokenStore

FORGETTING = "forgetting"
VALIDATIONS = 10  # over the run, where nothing else is asked for


class ClassPromptsKind:
    """See `engine.finetune.Kind`."""

    def make(self, config: FinetuneConfig, prepared: Prepared) -> tuple[ClassPromptsRecipe, Settings]:
        """What is trained, and how.

        Raises:
            Refused: NO_TEXT_TOWER, SAME_DATA, or classes that cannot be told apart.
        """
        task: ClassPromptTuning = config.task
        if not hasattr(config.backbone, "prompt_tokenizer"):
            raise Refused(
                "NO_TEXT_TOWER",
                f"--backbone.kind {config.backbone.kind} reads no sentences; --task.kind class_prompts needs two "
                "towers, as kind clip has. Use --task.kind classification",
            )
        label = prepared.labelled.label
        prompts = arranged(task.prompts(label.classes), label.classes)
        recipe = ClassPromptsRecipe(
            config.backbone, task, Images(prepared.parts, task.label, prompts), self._forgetting(config, prepared),
            config.batch_size, config.batch_tokens, config.seed, config.split_seed, prepared.plan.weights,
        )  # fmt: skip
        _check_parts(with_all_classes(prepared.labelled, prompts))
        return recipe, self._settings(config, prepared, len(recipe.shots()[0]))

    def conclude(
        self, config: FinetuneConfig, prepared: Prepared, recipe: ClassPromptsRecipe, trained: Trained, job: OpenJob
    ) -> int:
        """Writes checkpoint, scores, predictions and report; returns the exit code."""
        task, prompts = recipe.task, recipe.images.prompts
        labelled = with_all_classes(prepared.labelled, prompts)
        adapted = adapted_scores(trained.outcome, labelled, task.shares)
        write_checkpoint(recipe, trained, adapted.share, job)
        scores = score_table(trained.outcome, labelled, adapted)
        job.publish_table(SCORES, scores.drop_columns(["predicted"]))
        job.publish_table(PREDICTIONS, prediction_table(at_share(trained.outcome, adapted.chosen), labelled))
        settings = self._settings(config, prepared, int(trained.outcome["shots"].sum()))
        report = class_prompts_report(
            trained, settings, task, prompts, labelled, adapted, prepared.plan.run, notes=config.notes,
            warnings=[*_overlap(prepared, recipe.forgetting), *_strangers(trained)], refused=prepared.tokens.refused,
        )  # fmt: skip
        return job.finish(
            report, drawer(trained.history, labelled, trained.outcome, adapted), rows=len(labelled.judged.rows),
            refusals=prepared.tokens.quarantined,
        )  # fmt: skip

    def _settings(self, config: FinetuneConfig, prepared: Prepared, images: int) -> Settings:
        """The whole run counts: no best epoch is kept, unless --patience or --watch is given."""
        settings = settings_of(config, prepared.parts)
        given, batch = config.model_fields_set, min(config.batch_size, images)
        a_pass = images // batch
        steps = config.steps or max(1, round(config.epochs * a_pass))
        every = round(config.checkpoint_every * a_pass) if "checkpoint_every" in given else steps // VALIDATIONS
        watched = "watch" in given or config.patience is not None
        return replace(
            settings,
            steps=steps,
            batch_size=batch,
            warmup=min(round(config.warmup * a_pass), steps // 10),
            checkpoint_every=max(1, every),
            watch=settings.watch if watched else "",
            patience=settings.patience if watched else None,
        )

    def _forgetting(self, config: FinetuneConfig, prepared: Prepared) -> Images | None:
        """Tokenises the other images, all of them.

        Raises:
            Refused: SAME_DATA, or as the stage.
        """
        if config.forgetting is None:
            return None
        prompts = config.task.forgetting_prompts()
        source = with_columns(config.forgetting, (prompts.label,))
        if prompts.label not in source.schema.names:
            raise Refused("NO_COLUMN", f"--forgetting: no column {prompts.label!r}, only "
                          f"{', '.join(source.schema.names)}")  # fmt: skip
        data = {"source": config.forgetting.recipe(), "data": source.identity()}
        if data == {"source": config.source.recipe(), "data": config.source.identity()}:
            raise Refused(
                "SAME_DATA",
                "--forgetting names the very rows that are trained on: forgetting is measured on others, e.g. another "
                "--forgetting.domain or --forgetting.path",
            )
        run = {
            **prepared.plan.run,
            "job": f"{JOB} {FORGETTING}",
            "recipe": {"job": f"{JOB} {FORGETTING}", "weights": prepared.plan.weights, "label": prompts.label} | data,
        }
        parts, _ = store_tokens(
            source, config.backbone, config.split_seed, source.shards(),
            partial(SplitWithContent, config.split_seed, 0.0), below(prepared.parts.uri.rpartition("/")[0], FORGETTING),
            run, workers=config.workers, stage=FORGETTING,
        )  # fmt: skip
        if not sum(parts.count(TRAIN)):
            raise Refused("NO_ROWS", "--forgetting: none of its images can be used, see forgetting/quarantine.jsonl")
        if _contents(parts) <= _contents(prepared.parts, TRAIN):
            raise Refused(
                "SAME_DATA",
                "--forgetting: each of its images is among those that are trained on; forgetting is measured on others",
            )
        return other_images(parts, prompts)


KIND = ClassPromptsKind()


def write_checkpoint(recipe: ClassPromptsRecipe, trained: Trained, share: float, job: OpenJob) -> None:
    """OUTPUT/checkpoint: a plain CLIP with that share of the updates merged; registered with the tracker."""
    network = recipe.merged(trained.weights, share).network

    def write(folder: Path) -> str:
        save_clip(folder, network, recipe.backbone.folder, replace=True)
        return (
            f"CLIP adapted ({recipe.task.tower} tower, {share:g} of the update) to tell {recipe.task.label}, as a "
            "folder that transformers reads. To use it: --backbone.kind clip --backbone.checkpoint DIR"
        )

    job.publish_checkpoint("clip", write)


def other_images(parts: TokenParts, task: ClassPrompts) -> Images:
    """Stored rows to forget on, with the sentences of their classes.

    Raises:
        Refused: NO_ROWS, none is of a class; or as `labels_of` and `ClassPrompts.prompts`.
    """
    column = pa.chunked_array([chunk for each in TokenStore(parts).column(task.label) for chunk in each.chunks])
    prompts = task.prompts(() if task.classes else labels_of(column, task.label, 1, "--task.forgetting_label").classes)
    if (codes_of(column, prompts.values) == MISSING).all():
        raise Refused("NO_ROWS", f"--forgetting: no image is of the classes {_shown(prompts.values)}: write them as "
                      f"the column {task.label} does, VALUE=NAME for a readable name")  # fmt: skip
    return Images(parts, task.label, prompts)


def _check_parts(labelled: Labelled) -> None:
    """Classes that are listed may be none of those that rows have.

    Raises:
        Refused: NO_ROWS for training, or for test where there are test rows at all.
    """
    noun, label, parts = labelled.judged.noun, labelled.label, labelled.judged.split.parts
    for part, word in ((TRAIN, "training"), (TEST, "test")):
        if not len(labelled.held(part)) and (part == TRAIN or (parts == part).any()):
            raise Refused("NO_ROWS", f"no {word} {noun} are of the classes {_shown(label.classes)}: write them as the "
                          f"column {label.name} does, VALUE=NAME for a readable name")  # fmt: skip


def _shown(classes: Sequence[str], most: int = 5) -> str:
    return ", ".join(classes[:most]) + (", ..." if len(classes) > most else "")


def _overlap(prepared: Prepared, forgetting: Images | None) -> list[str]:
    """What of the other images was trained on."""
    if forgetting is None:
        return []
    same = len(_contents(forgetting.parts) & _contents(prepared.parts, TRAIN))
    return [f"{same:,} of the images for forgetting have an exact copy in training."] if same else []


def _strangers(trained: Trained) -> list[str]:
    """How many of the other images have no class."""
    codes = trained.outcome.get("forgetting_codes", np.empty(0, np.int64))
    lost = int((codes == MISSING).sum())
    return [f"{lost:,} of {len(codes):,} images for forgetting have none of the classes: left out."] if lost else []


def _contents(parts: TokenParts, part: int | None = None) -> set[int]:
    """Digests of what the network sees of the rows of a part, or of all."""
    found: list[NDArray[np.int64]] = []
    for column, sizes in zip(TokenStore(parts).column(CONTENT), parts.sizes, strict=True):
        values = column.to_numpy()
        found.append(values if part is None else values[sum(sizes[:part]) : sum(sizes[: part + 1])])
    return set(np.concatenate([np.empty(0, np.int64), *found]).tolist())
