"""Settings of a search: the job, what is drawn, what decides."""

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from xfm.core.config import Config
from xfm.engine.config import JobConfig


class Asha(Config):
    """Asynchronous successive halving."""

    grace_epochs: PositiveInt = 1
    """Epochs that every trial has."""

    reduction: float = Field(3.0, gt=1)
    """Of so many trials at the same epoch, one goes on; asked again after so many times as many epochs."""


class TuneJob(JobConfig):
    """Tries settings of a training job, several trials side by side, and reports what that gained."""

    finetune: str | dict[str, Any] | None = None
    """The job that is searched: path of a preset, or its settings, perhaps over a `preset:`."""

    pretrain: str | dict[str, Any] | None = None
    """The same, where a pretraining job is searched."""

    space: dict[str, dict[str, list[Any]]]
    """Fields of that job and how their values are drawn: uniform, loguniform, quniform, qloguniform, randint, choice
    or grid."""

    trials: PositiveInt = Field(16, ge=2)
    """How many, trial 0 included; may be raised later to search on."""

    metric: str | None = None
    """Validation score that decides, e.g. validation_f1, or -validation_loss where lower is better; by default what the
    job itself watches."""

    also: str | None = None
    """A second score to search for at once, written alike, or as NAME~VALUE where nearer to VALUE is better:
    validation_leakage_auroc~0.5. OUTPUT/front then holds a preset for each trial that none beats in both."""

    searcher: Literal["tpe", "random"] = "tpe"
    """What chooses values: a tree-structured TreeParzen estimator (Optuna), or chance."""

    asha: Asha | None = Asha()
    """When trials that are behind are given up; null lets all run to their end, as --also does: a trial that is behind
    in one score may be ahead in the other."""

    concurrent: PositiveInt | None = None
    """Trials side by side at most; by default as many as fit into the cluster."""

    workers: PositiveInt | None = None
    """Processes of each trial that share its batches; by default what the job says, else one."""

    seed: NonNegativeInt = 0
    """Keys what is drawn. The training of every trial has the seed of the job that is searched."""

    @model_validator(mode="before")
    @classmethod
    def _two_scores_have_no_rank(cls, values: Any) -> Any:
        """--also turns halving off where nobody asked for it."""
        if isinstance(values, dict) and values.get("also") is not None:
            return {"asha": None} | values
        return values

    @model_validator(mode="after")
    def _searches_one_job(self) -> Self:
        if (self.finetune is None) == (self.pretrain is None):
            found = "neither" if self.finetune is None else "both"
            raise ValueError(f"give the job that is searched, as finetune: or as pretrain: in --config, found {found}")
        if self.also is not None and self.asha is not None:
            raise ValueError("--asha gives up trials by one score, and --also asks for two; leave out either")
        return self

    @classmethod
    def not_in_fingerprint(cls) -> set[str]:
        """More trials may join those that are done."""
        return super().not_in_fingerprint() | {"trials", "concurrent"}

    @classmethod
    def added_later(cls) -> dict[str, Any]:
        return {"pretrain": None, "also": None}
