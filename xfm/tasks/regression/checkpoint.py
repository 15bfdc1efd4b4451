"""A trained regression as files: a headed backbone whose head.json says how numbers were standardised."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xfm.core.backbone import Backbone, BackboneConfig
from xfm.models.headed import HeadedBackbone
from xfm.models.headed_checkpoint import how_to_read, read_headed, write_headed
from xfm.tasks.regression.rows import Scale
from xfm.tasks.regression.settings import Regression


def write_regression(
    folder: Path,
    regression: HeadedBackbone,
    config: BackboneConfig,
    task: Regression,
    scale: Scale,
    *,
    seed: int,
    training: Mapping[str, Any],
) -> None:
    """Writes the files, see `write_headed`."""
    about = {"target": {"mean": scale.mean, "sd": scale.deviation}, "label": task.label}
    write_headed(folder, regression, config, task, (task.label,), seed=seed, about=about, training=training)


def read_regression(folder: Path, backbone: Backbone) -> tuple[HeadedBackbone, Scale]:
    """The regression of a folder on a backbone that was read from it, in evaluation mode.

    Returns:
        The network, whose one output is a standardised number, and the scale: mean + deviation * output is the number.
    """
    headed, about = read_headed(folder, backbone)
    return headed, Scale(about["target"]["mean"], about["target"]["sd"])


def about_checkpoint(task: Regression, scale: Scale, kind: str) -> str:
    """A description for people."""
    return (
        f"{kind} fine-tuned ({task.mode}) to predict {task.label}: {scale.mean:g} + {scale.deviation:g} times the "
        f"output of the head. {how_to_read(kind)}; --predictions adds its "
        f"numbers"
    )
