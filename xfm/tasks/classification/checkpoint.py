"""A trained classifier as files: a headed backbone whose head.json names the classes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xfm.core.backbone import Backbone, BackboneConfig
from xfm.models.headed import HeadedBackbone
from xfm.models.headed_checkpoint import how_to_read, read_headed, write_headed
from xfm.tasks.classification.settings import Classification


def write_classifier(
    folder: Path,
    classifier: HeadedBackbone,
    config: BackboneConfig,
    task: Classification,
    classes: tuple[str, ...],
    *,
    seed: int,
    training: Mapping[str, Any],
) -> None:
    """Writes the files, see `write_headed`; `classes` are in the order of the logits."""
    about = {"classes": list(classes), "label": task.label}
    write_headed(folder, classifier, config, task, classes, seed=seed, about=about, training=training)


def read_classifier(folder: Path, backbone: Backbone) -> tuple[HeadedBackbone, tuple[str, ...]]:
    """The classifier of a folder on a backbone that was read from it, and its classes; in evaluation mode."""
    headed, about = read_headed(folder, backbone)
    return headed, tuple(about["classes"])


def about_checkpoint(task: Classification, classes: tuple[str, ...], kind: str) -> str:
    """A description for people."""
    shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    told = f"{kind} fine-tuned ({task.mode}) to tell {task.label}: {shown}"
    return f"{told}. {how_to_read(kind)}; --predictions adds its classes"
