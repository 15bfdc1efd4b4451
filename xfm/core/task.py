"""The settings of what is learned, light enough for `--help`: they name the class that does it as a string."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from xfm.core.config import Config


class TaskSettings(Config):
    """Base of the section `task`. A registry line names a subclass; its `task` names the class that learns."""

    task: ClassVar[str]  # "module:Class" of a `training.task.Task`
    # "backbone", a network that the job names (jobs/finetune.py), or "task", one that the task's own settings describe
    # (jobs/pretrain.py)
    starts_from: ClassVar[Literal["backbone", "task"]] = "backbone"
    # validation scores that may decide which weights are kept; empty where they are known only when the task has been
    # set up
    watchable: ClassVar[tuple[str, ...]] = ()
    measures_forgetting: ClassVar[bool] = False  # whether it scores the rows of --forgetting

    kind: str
    """Name of the entry in the registry."""

    @classmethod
    def training_defaults(cls, task: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
        """Values for fields of the job that are not given; of this section and the job as given, not validated yet."""
        del task, job
        return {} if cls.starts_from == "backbone" else dict(FROM_SCRATCH)


# How networks are trained that begin with random weights, or go on with their own objective.
FROM_SCRATCH: dict[str, Any] = {
    "epochs": 6.0, "batch_tokens": 65536, "lr": 1e-4, "schedule": "cosine", "weight_decay": 0.0, "validation": 0.1,
    "test": 0.0, "log_every": 20, "watch": None, "patience": None, "warmup": None, "checkpoint_every": None,
}  # fmt: skip
