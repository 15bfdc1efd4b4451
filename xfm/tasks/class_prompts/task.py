"""Class prompts as a task: CLIP adapted to a few images, and what that costs on other ones.

OUTPUT/forgetting/   the other images, as the network reads them; shared by all seeds, resumable on its own
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from xfm.core.errors import Refused
from xfm.core.parts import TEST, TRAIN
from xfm.judging.classifier_scores import PREDICTIONS, SCORES, prediction_table
from xfm.judging.eval_set import MISSING, labels_of
from xfm.judging.labelled import CONTENT, Labelled, codes_of, together
from xfm.judging.labelled_task import LabelledTask
from xfm.models.clip.prompts import ClassPrompts
from xfm.models.clip.writing import save_clip
from xfm.tasks.class_prompts.recipe import ClassPromptsRecipe, Images, chosen_shots
from xfm.tasks.class_prompts.report import class_prompts_report, draw
from xfm.tasks.class_prompts.scores import adapted_scores, arranged, at_share, score_table, with_all_classes
from xfm.tasks.class_prompts.settings import ClassPromptTuning
from xfm.training.settings import Trained
from xfm.training.task import Checkpoint, ExtraSource, Result, TaskContext, TrainingInputs, TrainingRun
from xfm.training.tokens import TokenParts, TokenStore

FORGETTING = "forgetting"


class ClassPromptsTask(LabelledTask):
    """Low-rank updates of CLIP on a few images of each class.

    Raises:
        Refused: NO_TEXT_TOWER.
    """

    fixed: ClassVar[frozenset[str]] = frozenset({"kind", "label", "classes", "shots"})
    afterwards: ClassVar[frozenset[str]] = frozenset(
        {"shares", "forgetting_label", "forgetting_classes", "forgetting_templates"}
    )

    def __init__(self, context: TaskContext) -> None:
        super().__init__(context)
        if not hasattr(context.backbone, "prompt_tokenizer"):
            raise Refused(
                "NO_TEXT_TOWER",
                f"--backbone.kind {context.backbone.kind} reads no sentences; --task.kind class_prompts needs two "
                "towers, as kind clip has. Use --task.kind classification",
            )

    def extra_sources(self) -> dict[str, ExtraSource]:
        """The images of --forgetting.

        Raises:
            Refused: SAME_DATA, they are those that are trained on.
        """
        context, other = self.context, self.context.forgetting
        if other is None:
            return {}
        recipes: list[Any] = [each.recipe() for each in (other, context.source)]  # type: ignore[attr-defined]
        if recipes[0] == recipes[1] and other.identity() == context.source.identity():
            raise Refused(
                "SAME_DATA",
                "--forgetting names the very rows that are trained on: forgetting is measured on others, e.g. another "
                "--forgetting.domain or --forgetting.path",
            )
        return {FORGETTING: ExtraSource(other, (context.settings.forgetting_prompts().label,))}

    def epoch_rows(self, parts: TokenParts, rows: Labelled) -> int:
        """The images that are trained on: a few of each class.

        Raises:
            Refused: NO_ROWS, as `check_parts`.
        """
        return len(chosen_shots(self._images(parts, rows), self.context.settings, self.context.training.seed)[0])

    def recipe(self, given: TrainingInputs) -> ClassPromptsRecipe:
        """Updates of one tower or both.

        Raises:
            Refused: NO_ROWS or SAME_DATA, or classes that cannot be told apart.
        """
        context, training = self.context, self.context.training
        images = self._images(given.parts, given.rows)
        other = None
        if (found := given.extra.get(FORGETTING)) is not None:
            if contents(found) <= contents(given.parts, TRAIN):
                raise Refused("SAME_DATA", "--forgetting: each of its images is among those that are trained on; "
                              "forgetting is measured on others")  # fmt: skip
            other = other_images(found, context.settings.forgetting_prompts())
        return ClassPromptsRecipe(
            context.backbone, context.settings, images, other, given.settings.batch_size, training.batch_tokens,
            training.seed, training.split_seed, given.identity,
        )  # fmt: skip

    def result(self, recipe: ClassPromptsRecipe, run: TrainingRun) -> Result:
        """A plain CLIP with the chosen share of the updates merged; scores at every share, and what was forgotten."""
        task, prompts, trained = recipe.task, recipe.images.prompts, run.trained
        labelled = with_all_classes(run.rows, prompts)
        adapted = adapted_scores(trained.outcome, labelled, task.shares)
        network = recipe.merged(trained.weights, adapted.share).network

        def write(folder: Path) -> str:
            save_clip(folder, network, recipe.backbone.folder, replace=True)
            return (
                f"CLIP adapted ({task.tower} tower, {adapted.share:g} of the update) to tell {task.label}, as a "
                "folder that transformers reads. To use it: --backbone.kind clip --backbone.checkpoint DIR"
            )

        scores = score_table(trained.outcome, labelled, adapted)
        warnings = [*_overlap(run.parts, recipe.forgetting), *strangers(trained)]
        return Result(
            checkpoint=Checkpoint("clip", write),
            report=class_prompts_report(run, task, prompts, labelled, adapted, warnings),
            draw=partial(draw, trained.history, labelled, trained.outcome, adapted),
            tables={
                SCORES: scores.drop_columns(["predicted"]),
                PREDICTIONS: prediction_table(at_share(trained.outcome, adapted.chosen), labelled),
            },
        )

    def _images(self, parts: TokenParts, rows: Labelled) -> Images:
        task: ClassPromptTuning = self.context.settings
        prompts = arranged(task.prompts(rows.label.classes), rows.label.classes)
        check_parts(with_all_classes(rows, prompts), has_test=self.context.has_test)
        return Images(parts, task.label, prompts)


def other_images(parts: TokenParts, task: ClassPrompts) -> Images:
    """Stored rows to forget on, with the sentences of their classes.

    Raises:
        Refused: NO_ROWS, none is of a class; or as `labels_of` and `ClassPrompts.prompts`.
    """
    column = together(TokenStore(parts), task.label)
    prompts = task.prompts(() if task.classes else labels_of(column, task.label, 1, "--task.forgetting_label").classes)
    if (codes_of(column, prompts.values) == MISSING).all():
        raise Refused("NO_ROWS", f"--forgetting: no image is of the classes {_shown(prompts.values)}: write them as "
                      f"the column {task.label} does, VALUE=NAME for a readable name")  # fmt: skip
    return Images(parts, task.label, prompts)


def check_parts(labelled: Labelled, *, has_test: bool = True) -> None:
    """Classes that are listed may be none of those that rows have.

    Raises:
        Refused: NO_ROWS for training, or for test where there are test rows at all.
    """
    noun, label, parts = labelled.judged.noun, labelled.label, labelled.judged.split.parts
    for part, word in ((TRAIN, "training"), (TEST, "test")):
        is_wanted = part == TRAIN or (has_test and (parts == part).any())
        if is_wanted and not len(labelled.held(part)):
            raise Refused("NO_ROWS", f"no {word} {noun} are of the classes {_shown(label.classes)}: write them as the "
                          f"column {label.name} does, VALUE=NAME for a readable name")  # fmt: skip


def _shown(classes: Sequence[str], most: int = 5) -> str:
    return ", ".join(classes[:most]) + (", ..." if len(classes) > most else "")


def _overlap(parts: TokenParts, forgetting: Images | None) -> list[str]:
    """What of the other images was trained on."""
    if forgetting is None:
        return []
    same = len(contents(forgetting.parts) & contents(parts, TRAIN))
    return [f"{same:,} of the images for forgetting have an exact copy in training."] if same else []


def strangers(trained: Trained) -> list[str]:
    """How many of the other images have no class."""
    codes = trained.outcome.get("forgetting_codes", np.empty(0, np.int64))
    lost = int((codes == MISSING).sum())
    return [f"{lost:,} of {len(codes):,} images for forgetting have none of the classes: left out."] if lost else []


def contents(parts: TokenParts, part: int | None = None) -> set[int]:
    """Digests of what the network sees of the rows of a part, or of all."""
    found: list[NDArray[np.int64]] = []
    for column, sizes in zip(TokenStore(parts).column(CONTENT), parts.sizes, strict=True):
        values = column.to_numpy()
        found.append(values if part is None else values[sum(sizes[:part]) : sum(sizes[: part + 1])])
    return set(np.concatenate([np.empty(0, np.int64), *found]).tolist())
