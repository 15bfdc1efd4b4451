"""A trained donor classifier as files: the fusion as a checkpoint of its own, head and adversary beside it. No pickle.

model.safetensors, fusion.json, label_embeddings.parquet    what --backbone.kind fusion reads
classifier.safetensors, classifier.json                     head, adversary; classes, their columns, shape, training
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from xfm.core.errors import Refused
from xfm.models.fusion.checkpoint import read_fusion, write_fusion
from xfm.models.fusion.label_embeddings import TextBank
from xfm.tasks.adversarial.learner import AdversarialRecipe, Columns
from xfm.tasks.adversarial.network import AdversarialClassifier
from xfm.tasks.adversarial.settings import AdversarialClassification

CLASSIFIER, ABOUT = "classifier.safetensors", "classifier.json"
BESIDE = ("head.", "adversary.")  # tensors that are not the fusion's


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
