"""The members of a comparison: jobs that it runs itself, each from several seeds, out of one mapping of settings.

    base:                                   # of every job that has the field; under a job's name of that job alone
      source: {kind: digits}
      finetune: {epochs: 10}
    members:
      start: {job: pretrain, task: {kind: contrastive}}
      tuned: {job: finetune, after: start, title: tuned from it, backbone: {kind: clip}}

`after` fills in the checkpoint that the member named there wrote from the same seed. Everything beside `job`, `title`,
`after`, `seeds`, `rows`, `series` and `published` is a setting of the job, judged before anything runs.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, PositiveInt, ValidationError

from xfm.core.config import Config
from xfm.core.errors import did_you_mean
from xfm.core.storage import below, open_storage
from xfm.engine.config import JobConfig
from xfm.engine.session import CHECKPOINT
from xfm.engine.settings import UsageError, build, merge, named_as_fields

MEMBERS = "members"  # the folder below OUTPUT
OURS = ("seed", "output", "dry_run", "experiment")  # settings that the comparison gives
JobName = Literal["pretrain", "finetune", "evaluate"]


class RowWords(Config):
    """A row of the table, where a member has several or its own words for it."""

    title: str
    """What stands in the first column."""

    task: str | None = None
    """Whose scores: finetune, probe, svm, knn; by default what the member trained, or what chose its layer."""

    representation: str | None = None
    """Whose scores: majority, chance, mean_l07, ...; by default what was trained, or what was chosen."""

    series: str | None = None
    """In a trade-off: points of one series share a colour and are joined in the order of --curve."""

    published: dict[str, float] = Field(default_factory=dict)
    """Numbers that others state for it, on other data: accuracy, f1, weighted_f1."""


class MemberWords(Config):
    """What a member says beside the settings of its job."""

    job: JobName
    """Which one."""

    title: str | None = None
    """What its row is called; by default its name."""

    after: str | None = None
    """Member whose checkpoint of the same seed it starts from."""

    seeds: PositiveInt | None = None
    """How many; by default as many as the comparison says, and one for evaluate, which draws nothing."""

    rows: tuple[RowWords, ...] | None = None
    """Rows of the table: by default one, none for pretrain."""

    series: str | None = None
    """As for a row."""

    published: dict[str, float] = Field(default_factory=dict)
    """As for a row."""


@dataclass(frozen=True, slots=True)
class Member:
    """One job of several seeds."""

    name: str
    words: MemberWords
    configs: Mapping[int, JobConfig] = field(default_factory=dict)  # the job of each seed, its OUTPUT filled in

    @property
    def rows(self) -> tuple[RowWords, ...]:
        words = self.words
        if words.rows is not None or words.job == "pretrain":
            return words.rows or ()
        return (RowWords(title=self.title, series=words.series, published=words.published),)

    @property
    def title(self) -> str:
        return self.words.title or self.name


@dataclass(frozen=True, slots=True)
class Entry:
    """One seed of a member."""

    member: Member
    seed: int

    @property
    def config(self) -> Any:
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


def check_rows(members: Sequence[Member], against: str | None) -> None:
    """That titles tell rows apart, and that the one to test against is among them.

    Raises:
        UsageError: they do not, or it is not.
    """
    titles = [row.title for member in members for row in member.rows]
    if twice := sorted({title for title in titles if titles.count(title) > 1}):
        raise UsageError(f"--members: two rows of the table are called {twice[0]!r}; give titles that differ")
    if against is not None and against not in titles:
        hint = did_you_mean(against, titles, repr)
        raise UsageError(f"--against {against}: is no row of the table.{hint} Known: {'; '.join(titles) or 'none'}")


def plan_members(
    members: Mapping[str, Mapping[str, Any]],
    base: Mapping[str, Any],
    jobs: Mapping[str, type[JobConfig]],
    output: str,
    *,
    seed: int,
    seeds: int,
) -> list[Member]:
    """All members with the settings of all their seeds, the first of which is `seed`; `output` is the comparison's.

    Raises:
        UsageError: a setting that no job has, or no such member; nothing has run.
    """
    words = {name: _words(name, given) for name, given in members.items()}
    _check_base(base, [jobs[each.job] for each in words.values()], jobs)
    uri = below(open_storage(output).uri, MEMBERS)
    planned: dict[str, Member] = {}
    for name in _in_order(words):
        own = words[name]
        count = own.seeds or (1 if own.job == "evaluate" else seeds)
        settings = _settings(name, own, members[name], base, jobs[own.job])
        numbers = range(seed, seed + count)
        configs = {number: _config(name, own, settings, jobs[own.job], uri, number) for number in numbers}
        if own.after is not None and not configs.keys() <= planned[own.after].configs.keys():
            raise UsageError(f"--members.{name}.after: {own.after} has fewer seeds than {count}")
        planned[name] = Member(name, own, configs)
    return [planned[name] for name in members]


def _words(name: str, given: Mapping[str, Any]) -> MemberWords:
    if not re.fullmatch(r"[\w][\w.\-]*", name) or name.startswith("tokens-"):
        raise UsageError(f"--members.{name}: a name becomes a folder: letters, digits, _ - . and no tokens- in front")
    own = {key: given[key] for key in MemberWords.model_fields if key in given}
    try:
        return MemberWords.model_validate(own)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
        raise UsageError(f"--members.{name}.{path}: {first['msg']}") from None


def _in_order(words: Mapping[str, MemberWords]) -> list[str]:
    """Names, each behind the one it starts from, otherwise as given."""
    order: list[str] = []
    for name in words:
        chain = [name]
        while (before := words[chain[-1]].after) is not None:
            where = f"--members.{chain[-1]}.after: {before}"
            if before not in words:
                raise UsageError(f"{where} is no member.{did_you_mean(before, words)} Known: {', '.join(words)}")
            if before in chain:
                raise UsageError(f"{where} goes round in a circle: {' after '.join([*chain, before])}")
            if words[before].job == "evaluate" or words[chain[-1]].job == "pretrain":
                raise UsageError(f"{where}: {words[before].job} leaves no checkpoint for a {words[chain[-1]].job} to "
                                 "start from; finetune and evaluate start from pretrain and finetune")  # fmt: skip
            chain.append(before)
        order += [each for each in reversed(chain) if each not in order]
    return order


def _check_base(base: Mapping[str, Any], used: Sequence[type[JobConfig]], jobs: Mapping[str, type[JobConfig]]) -> None:
    for key, own in base.items():
        name = key.replace("-", "_")
        if name in jobs and not isinstance(own or {}, Mapping):
            raise UsageError(f"--base.{key}: settings of {name} jobs, e.g. {{{key}: {{workers: 1}}}}, not {own!r}")
        if name in jobs or (name not in OURS and any(name in job.model_fields for job in used)):
            continue
        known = sorted({*jobs, *(each for job in used for each in job.model_fields)} - set(OURS))
        raise UsageError(f"--base.{key}: is no setting of any member's job.{did_you_mean(name, known)}")


def _settings(
    name: str, words: MemberWords, given: Mapping[str, Any], base: Mapping[str, Any], job: type[JobConfig]
) -> dict[str, Any]:
    """Of all its seeds: what all share, over it what its kind of job shares, over it its own."""
    common = {key: value for key, value in named_as_fields(job, base).items() if key in job.model_fields}
    own = {key: value for key, value in given.items() if key not in MemberWords.model_fields}
    layers = [common, named_as_fields(job, base.get(words.job) or {}), named_as_fields(job, own)]
    settings: dict[str, Any] = {}
    for layer in layers:
        for key in OURS:
            if key in layer:
                raise UsageError(f"--members.{name}.{key}: the comparison gives every member its own")
        settings = merge(settings, layer)
    if words.after is not None:
        backbone = settings.get("backbone")
        if backbone is not None and not isinstance(backbone, Mapping):
            raise UsageError(f"--members.{name}.backbone: settings with after, e.g. {{kind: {backbone}}}, not "
                             f"{backbone!r}")  # fmt: skip
        if "checkpoint" in (own.get("backbone") or {}):
            raise UsageError(f"--members.{name}: after says where backbone.checkpoint lies; give one of them")
    return settings


def _config(
    name: str, words: MemberWords, settings: Mapping[str, Any], job: type[JobConfig], uri: str, seed: int
) -> JobConfig:
    given: dict[str, Any] = {"output": below(uri, f"{name}/seed-{seed}"), "seed": seed}
    if words.after is not None:
        given["backbone"] = {"checkpoint": below(uri, f"{words.after}/seed-{seed}/{CHECKPOINT}")}
    try:
        return build(job, merge(settings, given), f"jobs/{words.job}.py")
    except UsageError as error:
        lines = [f"--members.{name}.{line.removeprefix('--')}" for line in str(error).splitlines()]
        raise UsageError("\n".join(lines)) from None
