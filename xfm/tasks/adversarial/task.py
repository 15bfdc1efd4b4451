"""Telling donors apart as a task, with or without an adversary.

OUTPUT/label_embeddings.parquet                             vectors of the words, encoded once
OUTPUT/checkpoint/
model.safetensors, fusion.json, label_embeddings.parquet    what --backbone.kind fusion reads
classifier.safetensors, classifier.json                     head, adversary; classes, their columns, shape, training
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from safetensors.torch import load_file, save_file

from xfm.core.errors import Refused
from xfm.core.parts import TRAIN
from xfm.core.storage import open_storage
from xfm.judging.classifier_scores import PREDICTIONS, SCORES, prediction_table
from xfm.judging.labelled import Labelled, together
from xfm.judging.labelled_task import LabelledTask
from xfm.models.fusion.checkpoint import read_fusion, write_fusion
from xfm.models.fusion.label_embeddings import TextBank, share_labels
from xfm.tasks.adversarial.learner import AdversarialRecipe, Columns
from xfm.tasks.adversarial.network import AdversarialClassifier
from xfm.tasks.adversarial.report import adversarial_report, attention_words, cautions, draw
from xfm.tasks.adversarial.scores import score_table
from xfm.tasks.adversarial.settings import MISSING, AdversarialClassification
from xfm.training.task import Checkpoint, Result, TaskContext, TrainingInputs, TrainingRun
from xfm.training.tokens import TokenParts, TokenStore, embedding_width

CLASSIFIER, ABOUT = "classifier.safetensors", "classifier.json"
BESIDE = ("head.", "adversary.")  # tensors that are not the fusion's


class AdversarialTask(LabelledTask):
    """Classes of a column from a cell's embedding and words, while an attribute is unlearned.

    Raises:
        Refused: NO_FUSION, another kind of network; NO_FUSED_FEATURES, an adversary that could teach nothing.
    """

    fixed: ClassVar[frozenset[str]] = frozenset({"kind", "label", "attribute", "within"})

    def __init__(self, context: TaskContext) -> None:
        super().__init__(context)
        check_backbone(context.settings, context.backbone)

    @property
    def also_read(self) -> tuple[str, ...]:
        """Attribute and data set, where they are named."""
        columns: tuple[str, ...] = self.context.settings.columns
        return columns

    def share(self, parts: TokenParts, common: str, own: str) -> None:
        """The vectors of all words."""
        backbone = self.context.backbone
        share_labels(backbone, TokenStore(parts).column(backbone.text_column), common, own)

    def recipe(self, given: TrainingInputs) -> AdversarialRecipe:
        """Fusion, head and adversary; the words of all rows are encoded here.

        Raises:
            Refused: ONE_CLASS, or as the backbone's `bank_of` and `start`.
        """
        context, store = self.context, TokenStore(given.parts)
        columns = columns_of(context.settings, context.backbone, given.rows)
        texts = together(store, columns.text).unique().to_pylist()
        bank = context.backbone.bank_of(texts, open_storage(context.uri))
        recipe = AdversarialRecipe(
            context.backbone, context.settings, columns, bank, embedding_width(store, given.parts), given.parts,
            given.settings.batch_size, given.settings.steps, context.training.seed, given.identity,
        )  # fmt: skip
        recipe.network()  # on the driver, so that weights that do not fit are refused before workers start
        return recipe

    def result(self, recipe: AdversarialRecipe, run: TrainingRun) -> Result:
        """Fusion, head and adversary; scores, what leaks, and the prediction of each validation and test row."""
        context, task, trained, labelled = self.context, recipe.task, run.trained, run.rows
        scores = score_table(trained.outcome, labelled, task, f"epoch {trained.best_step / run.steps_per_epoch:g}")
        scheme = getattr(getattr(context.source, "split", None), "scheme", None) if context.training.split else None
        warnings = cautions(run, task, scheme)
        warnings += attention_words(trained.outcome.get("attention"), labelled.judged.noun)
        classifier = recipe.trained(trained.weights)

        def write(folder: Path) -> str:
            write_adversarial(folder, classifier, recipe, context.record)
            return about_checkpoint(task, recipe.columns.classes)

        return Result(
            checkpoint=Checkpoint(str(context.backbone.kind), write),
            report=adversarial_report(run, task, scores, warnings),
            draw=partial(draw, trained.history, labelled, trained.outcome),
            tables={
                SCORES: scores.drop_columns(["predicted"]), PREDICTIONS: prediction_table(trained.outcome, labelled)
            },
        )  # fmt: skip


def check_backbone(task: AdversarialClassification, backbone: Any) -> None:
    """Raises Refused: NO_FUSION, another kind of network; NO_FUSED_FEATURES, an adversary that could teach nothing."""
    if not hasattr(backbone, "bank_of"):
        raise Refused(
            "NO_FUSION",
            f"--task.kind adversarial reads embeddings beside words: --backbone.kind fusion, not {backbone.kind}. For "
            "a head on any other network use --task.kind classification",
        )
    if task.is_adversarial and backbone.design == "concat":
        raise Refused(
            "NO_FUSED_FEATURES",
            "--backbone.design concat gives its inputs as they are: there are no weights below the head that could "
            f"unlearn {task.attribute}. Add --no-task.adversary, or use --backbone.design fusion",
        )


def columns_of(task: AdversarialClassification, backbone: Any, labelled: Labelled) -> Columns:
    """Where things are in the rows.

    Raises:
        Refused: ONE_CLASS, an adversary needs two classes among training rows.
    """
    attribute = labelled.also_read(task.attribute)
    classes = () if attribute is None else attribute.classes
    if attribute is not None and task.is_adversarial:
        codes = attribute.codes[labelled.held(TRAIN)]
        found = sorted({classes[code] for code in codes if code != MISSING})
        if len(found) < 2:
            raise Refused("ONE_CLASS", f"--task.attribute {task.attribute}: an adversary needs two known classes among "
                          f"training rows, found {', '.join(found) or 'none'}. Add --no-task.adversary")  # fmt: skip
    (text,) = backbone.columns
    return Columns(text, task.label, labelled.label.classes, task.attribute, classes)


def write_adversarial(
    folder: Path, classifier: AdversarialClassifier, recipe: AdversarialRecipe, training: Mapping[str, Any]
) -> None:
    """Writes the files of a trained classifier; an existing folder is exchanged. `training` is kept beside them."""
    columns = recipe.columns
    about: dict[str, Any] = {"task": recipe.task.recipe(), "label": columns.label, "classes": list(columns.classes)}
    write_fusion(folder, classifier.network.cpu(), recipe.backbone, recipe.bank, recipe.gene_dim, about, replace=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in classifier.state_dict().items()
               if name.startswith(BESIDE)}  # fmt: skip
    save_file(tensors, folder / CLASSIFIER, metadata={"format": "pt"})
    about |= {"attribute": columns.attribute, "attributes": list(columns.attributes), "hidden": classifier.hidden}
    about |= {"training": dict(training)}
    (folder / ABOUT).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_adversarial(folder: Path) -> tuple[AdversarialClassifier, TextBank, Columns]:
    """The classifier of a folder, in evaluation mode, its words and its classes.

    Raises:
        Refused: as `read_fusion`; NO_CLASSIFIER, head and classes are not there; OTHER_WEIGHTS, or not all of them.
    """
    if missing := [name for name in (CLASSIFIER, ABOUT) if not (folder / name).is_file()]:
        raise Refused("NO_CLASSIFIER", f"{folder}: {' and '.join(missing)} not found. A donor classifier is what "
                      "--task.kind adversarial writes to OUTPUT/checkpoint; an aligned fusion has no head")  # fmt: skip
    fusion, about = read_fusion(folder), json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    task = AdversarialClassification(**about["task"])
    classes, attributes = tuple(about["classes"]), tuple(about["attributes"])
    classifier = AdversarialClassifier(
        fusion.network, fusion.bank, task, len(classes), len(attributes), about["hidden"], seed=0
    )
    found = classifier.load_state_dict(load_file(folder / CLASSIFIER), strict=False)
    lacking = [name for name in found.missing_keys if name.startswith(BESIDE)]
    if lacking or found.unexpected_keys:
        raise Refused("OTHER_WEIGHTS", f"{folder / CLASSIFIER}: {ABOUT} describes other tensors than it holds: lacking "
                      f"{', '.join(lacking) or 'none'}, unexpected {', '.join(found.unexpected_keys) or 'none'}. Copy "
                      "both files of one run")  # fmt: skip
    columns = Columns(fusion.header.text_column, about["label"], classes, about["attribute"], attributes)
    return classifier.eval(), fusion.bank, columns


def about_checkpoint(task: AdversarialClassification, classes: tuple[str, ...]) -> str:
    """A description for people."""
    shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    against = f", trained against {task.attribute} ({task.reversal})" if task.is_adversarial else ""
    return (
        f"fusion fine-tuned to tell {task.label}: {shown}{against}. {CLASSIFIER} and {ABOUT} are its head. To embed "
        "with it: --backbone.kind fusion --backbone.checkpoint DIR"
    )
