"""Predicting a number: a head with one output on the last state of any backbone."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from xfm.core.task import TaskSettings
from xfm.models.head_settings import HeadSettings


class Regression(HeadSettings, TaskSettings):
    """Numbers of a column (age, a score, a rating), predicted by a head on the last state."""

    task: ClassVar[str] = "xfm.tasks.regression.task:RegressionTask"
    watchable: ClassVar[tuple[str, ...]] = ("r2", "mae", "loss")

    kind: Literal["regression"] = "regression"

    label: str = "label"
    """Column of the numbers."""

    @classmethod
    def training_defaults(cls, task: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
        """The best epoch on validation rows is kept, and three that bring nothing better end training."""
        del task
        return {"watch": "r2", "patience": None if job.get("watch", "r2") is None else 3}
