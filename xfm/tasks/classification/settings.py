"""Telling classes apart: a head on the last state of any backbone."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from xfm.core.task import TaskSettings
from xfm.models.head_settings import HeadSettings


class Classification(HeadSettings, TaskSettings):
    """Classes of a column, told by a head on the last state."""

    task: ClassVar[str] = "xfm.tasks.classification.task:ClassificationTask"
    watchable: ClassVar[tuple[str, ...]] = ("f1", "accuracy", "balanced_accuracy", "loss")

    kind: Literal["classification"] = "classification"

    label: str = "label"
    """Column of the classes."""

    @classmethod
    def training_defaults(cls, task: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
        """The best epoch on validation rows is kept, and three that bring nothing better end training."""
        del task
        return {"watch": "f1", "patience": None if job.get("watch", "f1") is None else 3}
