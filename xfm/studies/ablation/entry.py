"""One seed of a member: where it lies, what it is called, what it starts from."""

from collections.abc import Sequence
from dataclasses import dataclass

from xfm.engine.config import JobConfig
from xfm.studies.ablation.plan import MEMBERS, Member


@dataclass(frozen=True, slots=True)
class Entry:
    """One seed of a member."""

    member: Member
    seed: int

    @property
    def config(self) -> JobConfig:
        """Of its job."""
        return self.member.configs[self.seed]

    @property
    def key(self) -> str:
        """What it is called among the children of the comparison's MLflow run."""
        return f"{self.member.name}-seed-{self.seed}"

    @property
    def place(self) -> str:
        """Below the comparison's OUTPUT."""
        return f"{MEMBERS}/{self.member.name}/seed-{self.seed}"

    @property
    def start(self) -> str | None:
        """The key of the one whose checkpoint it starts from."""
        before = self.member.words.after
        return None if before is None else f"{before}-seed-{self.seed}"

    def __str__(self) -> str:
        return f"{self.member.name}, seed {self.seed}"


def entries_of(members: Sequence[Member]) -> list[Entry]:
    """Seed by seed: when the first ones are done, there is a whole table of one seed."""
    seeds = sorted({seed for member in members for seed in member.configs})
    return [Entry(member, seed) for seed in seeds for member in members if seed in member.configs]
