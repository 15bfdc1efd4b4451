"""Settings of fine-tuning: data, network, task, split, and how to train. Shared by jobs/finetune.py and searches."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from xfm.core import registry
from xfm.engine.config import AnyBackbone, AnySource, JobConfig, union_of
from xfm.tasks.classification.settings import Classification

if TYPE_CHECKING:
    AnyTask = Any
else:
    AnyTask = union_of(registry.TASKS, "xfm.tasks", "task")
Share = Annotated[float, Field(gt=0, lt=0.5)]
Watched = Literal["f1", "accuracy", "balanced_accuracy", "loss"]


class FinetuneConfig(JobConfig):
    """Fields of a fine-tuning job."""

    source: AnySource
    """Where rows come from. The columns of label, split and group are carried along by themselves."""

    backbone: AnyBackbone
    """The network to start from."""

    task: AnyTask = Classification()
    """What is learned, and how much of the network is trained."""

    forgetting: AnySource | None = None
    """Other images, on which --task.kind class_prompts measures what adapting costs; all of them are scored."""

    split: str | None = None
    """Column that says train, validation or test, of data that come split; without, rows are drawn by shares."""

    validation: Share = 0.2
    """Share of rows that the best epoch is chosen on; unused with --split, but for --carve."""

    test: Share = 0.2
    """Share of rows that are scored once, at the end; unused with --split."""

    carve: bool = False
    """With --split: take --validation of the training rows as validation rows, where the data name none."""

    group: str | None = None
    """Column that must not stand on both sides of a drawn split (patient, film); intervals resample it."""

    split_seed: NonNegativeInt = 0
    """Keys split, tokens and resamples, which are the same for every --seed."""

    workers: PositiveInt | None = None
    """Processes that share each batch; by default one, or one per GPU where --gpus is set. Other numbers of workers or
    threads round differently and drop other activations, but see the same batches."""

    epochs: PositiveFloat = 100.0
    """Passes over the training rows at most."""

    steps: PositiveInt | None = None
    """Optimiser steps at most; replaces epochs. With --task.kind class_prompts 500 a shot unless either is given."""

    patience: PositiveInt | None = 3
    """Validations without a better one that end training."""

    watch: Watched = "f1"
    """Validation score that says which weights are best; they are the ones that are kept."""

    max_seconds: PositiveFloat | None = None
    """Stop training after so many seconds, over all attempts; the result then depends on the machine."""

    batch_size: PositiveInt = 64
    """Rows of a step, over all workers."""

    batch_tokens: PositiveInt = 16384
    """Tokens of one pass through the network, padding included; a larger step takes several passes."""

    lr: PositiveFloat = 2e-5
    """Highest learning rate (AdamW)."""

    warmup: NonNegativeFloat = 0.06
    """Epochs in which the learning rate grows to lr."""

    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """After warmup: a line or half a cosine down to 0 at the last epoch, or constant."""

    weight_decay: NonNegativeFloat = 0.01
    """Of AdamW; biases and norms are left alone."""

    clip: PositiveFloat = 1.0
    """Highest norm of the gradient."""

    checkpoint_every: PositiveFloat = 1.0
    """Epochs between checkpoints, each with a validation; a crash loses no more."""

    log_every: PositiveInt = 10
    """Steps that one point of the loss curve averages."""

    threads: PositiveInt = 1
    """CPUs and threads of a worker. Without GPUs, small networks gain more from --workers."""

    bootstrap: PositiveInt = 2000
    """Resamples of rows, or groups, for the 95 % intervals."""

    notes: tuple[str, ...] = ()
    """Sentences to put on the report, e.g. published numbers and what differs."""

    @model_validator(mode="before")
    @classmethod
    def _as_the_task_is_trained(cls, values: Any) -> Any:
        """Classification where no kind is named, and the task's own way of training where none is asked for."""
        task = values.get("task") if isinstance(values, dict) else None
        if task is None:
            return values
        task = {"kind": Classification().kind, **task} if isinstance(task, dict) else task
        kind = task["kind"] if isinstance(task, dict) else task.kind
        if kind not in registry.entries("xfm.tasks", registry.TASKS):
            return values | {"task": task}
        model = registry.load(registry.entries("xfm.tasks", registry.TASKS), kind, "task")
        own: dict[str, Any] = getattr(model, "training_defaults", lambda _: {})(
            task if isinstance(task, dict) else task.model_dump()
        )
        if "epochs" in values:
            own.pop("steps", None)
        return own | values | {"task": task}

    @model_validator(mode="after")
    def _only_prompts_forget(self) -> "FinetuneConfig":
        if self.forgetting is not None and self.task.kind != "class_prompts":
            raise ValueError(f"--forgetting goes with --task.kind class_prompts, not {self.task.kind}")
        return self

    @model_validator(mode="after")
    def _carves_a_given_split(self) -> "FinetuneConfig":
        if self.carve and self.split is None:
            raise ValueError("--carve goes with --split: without it --validation is drawn anyway")
        return self

    @classmethod
    def not_in_fingerprint(cls) -> set[str]:
        """A time budget may be raised to train on; it marks the report instead."""
        return super().not_in_fingerprint() | {"max_seconds", "threads", "log_every", "notes"}

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that rows must bring: those of the task and of the split, and obs columns that the network reads."""
        read = (*getattr(self.task, "columns", ()), *getattr(self.backbone, "columns", ()))
        return tuple(dict.fromkeys(name for name in (self.task.label, self.split, self.group, *read) if name))

    @property
    def reader(self) -> Any:
        """As much of the backbone as tokenising takes: its `token_fields`, where it names any, and all of it else.

        Runs that differ in the rest, e.g. in sizes, may then share stored tokens.
        """
        fields = getattr(self.backbone, "token_fields", None)
        return self.backbone if fields is None else type(self.backbone)(
            **{name: getattr(self.backbone, name) for name in fields}
        )  # fmt: skip

    def token_recipe(self) -> dict[str, Any]:
        """What stored tokens depend on."""
        same = ("source", "split", "validation", "test", "carve", "group", "split_seed")
        recipe = self.recipe()
        reader = recipe["backbone"] if self.reader is self.backbone else self.reader.recipe()
        return {name: recipe[name] for name in same} | {"backbone": reader, "columns": list(self.columns)}
