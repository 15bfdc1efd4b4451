"""Settings of the jobs that learn. Pretraining describes its network in the task; fine-tuning names a backbone."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import PositiveInt, model_validator

from xfm.core import registry
from xfm.core.metric import find_metric
from xfm.core.task import TaskSettings
from xfm.core.unions import AnyBackbone, AnySource, union_of
from xfm.engine.config import JobConfig
from xfm.training.config import TrainingConfig

GROUP = "xfm.tasks"  # of entry points that add tasks


def _tasks_from(start: str) -> Any:
    return union_of(registry.TASKS, GROUP, "task", lambda kind: kind.starts_from == start)


if TYPE_CHECKING:
    AnyPretraining = Any
    AnyTask = Any
else:
    AnyPretraining, AnyTask = _tasks_from("task"), _tasks_from("backbone")


class LearnConfig(TrainingConfig, JobConfig):
    """Fields of every job that learns."""

    job: ClassVar[str]
    default_task: ClassVar[str | None] = None

    workers: PositiveInt | None = None
    """Processes that share each batch; by default one, or one per GPU where --gpus is set. Other numbers of workers or
    threads round differently and drop other activations, but see the same batches and masks."""

    threads: PositiveInt = 1
    """CPUs and threads of a worker. Without GPUs, small networks gain more from --workers."""

    source: AnySource
    """Where rows come from. The columns of task, split and group are carried along by themselves."""

    task: Any
    """What is learned."""

    @model_validator(mode="before")
    @classmethod
    def _as_the_task_is_trained(cls, values: Any) -> Any:
        """The default task where no kind is named, and the task's own way of training where none is asked for."""
        task = values.get("task", {}) if isinstance(values, dict) else None
        if task is None:
            return values
        if isinstance(task, Mapping):
            task = ({"kind": cls.default_task} if cls.default_task else {}) | dict(task)
        kind = task.get("kind") if isinstance(task, Mapping) else getattr(task, "kind", None)
        model: type[TaskSettings] | None = registry.load_all(GROUP, registry.TASKS, "task").get(str(kind))
        if model is None:
            return values | ({"task": task} if task else {})
        given = task if isinstance(task, Mapping) else task.model_dump()
        own = model.training_defaults(given, values)
        if "epochs" in values:
            own.pop("steps", None)
        return own | values | {"task": task}

    @model_validator(mode="after")
    def _watches_what_is_measured(self) -> Self:
        can = self.task.watchable
        name = self.watched.removeprefix("-").removeprefix("validation_")
        if name and can and name not in can:
            raise ValueError(f"--watch {self.watch}: --task.kind {self.task.kind} measures {', '.join(can)}")
        known = find_metric(name)
        if self.watched.startswith("-") and known is not None and known.better == "higher":
            raise ValueError(f"--watch {self.watch}: the higher is better; write --watch {name}")
        return self

    @classmethod
    def not_in_fingerprint(cls) -> set[str]:
        """Threads change last digits alone."""
        return super().not_in_fingerprint() | {"threads"}


class PretrainConfig(LearnConfig):
    """Fields of a pretraining job."""

    job: ClassVar[str] = "pretrain"

    task: AnyPretraining
    """What is learned, by a network of which size."""


class FinetuneConfig(LearnConfig):
    """Fields of a fine-tuning job."""

    job: ClassVar[str] = "finetune"
    default_task: ClassVar[str | None] = "classification"

    backbone: AnyBackbone
    """The network to start from."""

    task: AnyTask
    """What is learned, and how much of the network is trained."""

    forgetting: AnySource | None = None
    """Other rows, on which a task that can do so measures what training costs elsewhere; all of them are scored."""

    @model_validator(mode="after")
    def _can_forget(self) -> Self:
        if self.forgetting is not None and not self.task.measures_forgetting:
            raise ValueError(f"--forgetting: --task.kind {self.task.kind} does not measure it; choose one that does")
        return self
