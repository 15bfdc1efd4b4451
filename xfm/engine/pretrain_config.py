"""Settings of pretraining: data, what is learned, and how. Shared by jobs/pretrain.py, searches and ablations."""

from typing import TYPE_CHECKING, Any

from xfm.core import registry
from xfm.engine.config import AnySource, union_of
from xfm.engine.training_config import TrainingConfig

if TYPE_CHECKING:
    AnyPretraining = Any
else:
    AnyPretraining = union_of(registry.PRETRAINING, "xfm.pretraining", "task")


class PretrainConfig(TrainingConfig):
    """Fields of a pretraining job."""

    source: AnySource
    """Where rows come from."""

    task: AnyPretraining
    """What is learned, by a network of which size."""

    split: str | None = None
    """Column that says train, validation or test, in place of --validation_fraction; test rows are read by
    --task.kind alignment alone, once, when it has been trained."""
