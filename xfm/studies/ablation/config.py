"""Settings of a comparison: of runs that are there, or of members that it runs first."""

from typing import Any, Self

from pydantic import Field, PositiveInt, model_validator

from xfm.studies.compare.config import Leaderboards


class CompareJob(Leaderboards):
    """Ranks runs on validation cells, shows them on test cells, and tests each against the first."""

    members: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Jobs to run first, by name: `job` (pretrain, finetune, evaluate), its settings, and title, after, seeds, rows,
    published."""

    base: dict[str, Any] = Field(default_factory=dict)
    """Settings that all members share whose job has them; under pretrain, finetune, evaluate those of one job."""

    seeds: PositiveInt = 1
    """Run each member so many times, from --seed on; evaluate once."""

    against: str | None = None
    """Title of the row of the members' table that all others are tested against."""

    title: str | None = None
    """Of the members' page."""

    notes: tuple[str, ...] = ()
    """Sentences to put on the members' page, e.g. what the data are not."""

    @model_validator(mode="after")
    def _members_are_jobs(self) -> Self:
        """Before anything runs: a typo in the last member's settings must not be found after hours."""
        from xfm.engine.settings import UsageError
        from xfm.studies.ablation.plan import check_rows, members_of

        if self.members and "columns" in self.model_fields_set:
            raise ValueError("--columns goes with --runs alone: beside members each data set has a board of its own")
        try:
            check_rows(members_of(self), self.against)
        except UsageError as problem:
            raise ValueError(str(problem).rstrip(".")) from None
        return self

    @classmethod
    def not_in_fingerprint(cls) -> set[str]:
        """How runs were found or made (which ones they are counts), the seed (nothing is drawn), and words."""
        made = {"members", "base", "seeds", "against", "title", "notes"}
        return super().not_in_fingerprint() | made | {"runs", "query", "seed"}
