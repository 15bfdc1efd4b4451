"""Settings of a comparison: of runs that are there, or of members that it runs first."""

from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, PositiveInt, model_validator

from xfm.engine.config import JobConfig
from xfm.studies.ablation.shown import ShownSetting
from xfm.studies.compare.config import Leaderboards

if TYPE_CHECKING:
    from xfm.studies.ablation.plan import Member


class CompareJob(Leaderboards):
    """Ranks runs on validation cells, shows them on test cells, and tests each against the first."""

    members: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Jobs to run first, by name: `job` (pretrain, finetune, evaluate), its settings, and title, after, seeds, rows,
    series, published."""

    base: dict[str, Any] = Field(default_factory=dict)
    """Settings that all members share whose job has them; under pretrain, finetune, evaluate those of one job."""

    seeds: PositiveInt = 1
    """Run each member so many times, from --seed on; evaluate once."""

    against: str | None = None
    """Title of the row of the members' table that all others are tested against."""

    show: dict[str, str | ShownSetting] = Field(default_factory=dict)
    """Columns of the members' table that say what a member is: a name, and the field of its job, e.g. {dropout:
    task.dropout}; `after.` names fields of the member that it starts from."""

    curve: str | None = None
    """Column of --show with numbers: a trade-off joins the points of one series in its order."""

    title: str | None = None
    """Of the members' page."""

    notes: tuple[str, ...] = ()
    """Sentences to put on the members' page, e.g. what the data are not."""

    @model_validator(mode="after")
    def _members_are_jobs(self) -> Self:
        """Before anything runs: a typo in the last member's settings must not be found after hours."""
        from xfm.engine.settings import UsageError
        from xfm.studies.ablation.plan import check_rows
        from xfm.studies.ablation.shown import check_shown

        if self.members and "columns" in self.model_fields_set:
            raise ValueError("--columns goes with --runs alone: beside members each data set has a board of its own")
        try:
            members = members_of(self)
            check_rows(members, self.against)
            check_shown(self.show, self.curve, members)
        except UsageError as problem:
            raise ValueError(str(problem).rstrip(".")) from None
        return self

    @classmethod
    def not_in_fingerprint(cls) -> set[str]:
        """How runs were found or made (which ones they are counts), the seed (nothing is drawn), and words."""
        made = {"members", "base", "seeds", "against", "title", "notes", "show", "curve"}
        return super().not_in_fingerprint() | made | {"runs", "query", "seed"}


def members_of(config: CompareJob) -> list["Member"]:
    """The members of a comparison.

    Raises:
        UsageError: as `plan_members`.
    """
    if not config.members:
        return []
    from xfm.engine.learn_config import FinetuneConfig, PretrainConfig
    from xfm.studies.ablation.plan import plan_members
    from xfm.studies.evaluate.config import EvaluateJob

    jobs: dict[str, type[JobConfig]] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig, "evaluate": EvaluateJob}
    return plan_members(config.members, config.base, jobs, config.output, seed=config.seed, seeds=config.seeds)
