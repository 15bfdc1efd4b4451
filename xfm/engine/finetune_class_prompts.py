"""Class prompts as a kind of fine-tuning: CLIP adapted to a few images, and what that costs on other ones.

OUTPUT/forgetting/   the other images, as the network reads them; shared by all seeds, resumable on its own
"""

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xfm.core.errors import Refused
from xfm.core.storage import below
from xfm.engine.finetune import JOB, SMALL, ForTraining, Prepared, settings_of, with_columns
from xfm.engine.finetune_classification import CHECKPOINT, PREDICTIONS, SCORES, WEIGHTS, publish_table
from xfm.engine.finetune_config import FinetuneConfig
from xfm.engine.output import Output
from xfm.engine.session import OpenJob, local_folder
from xfm.engine.stage import run_stage
from xfm.loops.finetuning.class_prompts import ClassPromptsRecipe, Images
from xfm.loops.finetuning.class_prompts_report import class_prompts_report, drawer
from xfm.loops.finetuning.class_prompts_scores import (
    adapted_scores,
    arranged,
    at_share,
    score_table,
    with_all_classes,
)
from xfm.loops.finetuning.rows import CONTENT, SplitWithContent
from xfm.loops.finetuning.scores import prediction_table
from xfm.loops.training.settings import Settings, Trained
from xfm.loops.training.tokens import TRAIN, TokenParts, TokenStore, token_parts
from xfm.models.clip.writing import save_clip
from xfm.tasks.class_prompt_tuning import ClassPromptTuning

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
        publish_table(job, SCORES, scores.drop_columns(["predicted"]))
        publish_table(job, PREDICTIONS, prediction_table(at_share(trained.outcome, adapted.chosen), labelled))
        settings = self._settings(config, prepared, int(trained.outcome["shots"].sum()))
        report = class_prompts_report(
            trained, settings, task, prompts, labelled, adapted, prepared.plan.run, notes=config.notes,
            warnings=_overlap(prepared, recipe.forgetting), refused=prepared.tokens.refused,
        )  # fmt: skip
        return job.finish(
            report, drawer(trained.history, labelled, trained.outcome, adapted), rows=len(labelled.judged.rows),
            refusals=prepared.tokens.quarantined,
        )  # fmt: skip

    def _settings(self, config: FinetuneConfig, prepared: Prepared, images: int) -> Settings:
        """The whole run counts: no best epoch is kept, unless --patience or --watch is given."""
        settings = settings_of(config, prepared.parts)
        given, a_pass = config.model_fields_set, max(1, images // min(config.batch_size, images))
        steps = config.steps or max(1, round(config.epochs * a_pass))
        every = round(config.checkpoint_every * a_pass) if "checkpoint_every" in given else steps // VALIDATIONS
        watched = "watch" in given or config.patience is not None
        return replace(
            settings,
            steps=steps,
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
        shards = source.shards()

        def build(_device: str) -> Callable[[], SplitWithContent]:
            return partial(SplitWithContent, config.split_seed, 0.0)

        with Output(below(prepared.parts.uri.rpartition("/")[0], FORGETTING), run, joint=True) as output:
            run_stage(
                source, ForTraining(config.backbone), config.split_seed, shards, build, output,  # type: ignore[arg-type]
                stage=FORGETTING, workers=1 if len(shards) <= SMALL else config.workers, gpus=0,
                attempt=output.attempt,
            )  # fmt: skip
            parts = token_parts(output.uri, [shard.key for shard in shards if shard.key in output.committed])
        if not sum(parts.count(TRAIN)):
            raise Refused("NO_ROWS", "--forgetting: none of its images can be used, see forgetting/quarantine.jsonl")
        if _contents(parts) <= _contents(prepared.parts, TRAIN):
            raise Refused(
                "SAME_DATA",
                "--forgetting: each of its images is among those that are trained on; forgetting is measured on others",
            )
        found = {value for column in TokenStore(parts).column(prompts.label) for value in column.to_pylist() if value}
        return Images(parts, prompts.label, prompts.prompts([str(value) for value in found]))


KIND = ClassPromptsKind()


def write_checkpoint(recipe: ClassPromptsRecipe, trained: Trained, share: float, job: OpenJob) -> None:
    """OUTPUT/checkpoint: a plain CLIP with that share of the updates merged; registered with the tracker."""
    network = recipe.merged(trained.weights, share).network
    about = (
        f"CLIP adapted ({recipe.task.tower} tower, {share:g} of the update) to tell {recipe.task.label}, as a folder "
        "that transformers reads. To use it: --backbone.kind clip --backbone.checkpoint DIR"
    )

    def write(folder: Path) -> str:
        save_clip(folder, network, recipe.backbone.folder, replace=True)
        with (folder / WEIGHTS).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    local = local_folder(job.output.uri)
    if local is not None:
        job.register("clip", local / CHECKPOINT, write(local / CHECKPOINT), about)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / CHECKPOINT
        digest = write(folder)
        for file in sorted((path for path in folder.rglob("*") if path.is_file()), reverse=True):
            job.output.write_bytes(f"{CHECKPOINT}/{file.relative_to(folder)}", file.read_bytes())
        job.register("clip", below(job.output.place, CHECKPOINT), digest, about)


def _overlap(prepared: Prepared, forgetting: Images | None) -> list[str]:
    """What of the other images was trained on."""
    if forgetting is None:
        return []
    same = len(_contents(forgetting.parts) & _contents(prepared.parts, TRAIN))
    return [f"{same:,} of the images for forgetting have an exact copy in training."] if same else []


def _contents(parts: TokenParts, part: int | None = None) -> set[int]:
    """Digests of what the network sees of the rows of a part, or of all."""
    found: list[NDArray[np.int64]] = []
    for column, sizes in zip(TokenStore(parts).column(CONTENT), parts.sizes, strict=True):
        values = column.to_numpy()
        found.append(values if part is None else values[sum(sizes[:part]) : sum(sizes[: part + 1])])
    return set(np.concatenate([np.empty(0, np.int64), *found]).tolist())
