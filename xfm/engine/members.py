"""Runs the members of a comparison: what is left of them, several side by side, each in an OUTPUT of its own.

OUTPUT/members/NAME/seed-K/   a job's whole OUTPUT; its report.json says that it has finished
OUTPUT/members/tokens-*/      rows as networks read them, shared (`members_tokens.py`)

A member is one Ray task that trains in its own process (`members_work.py`): a group of Ray Train's workers would take
longer to start than a small network to train. A task whose process died is started again and continues from its last
checkpoint, and so does a comparison that was killed. What fails is reported, and the others go on.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from xfm.core.config import differing_fields
from xfm.core.errors import EnvironmentProblem, Refused
from xfm.core.ledger import REPORT, RUN, Refusal
from xfm.core.storage import below, open_storage
from xfm.engine.cluster import connect
from xfm.engine.config import JobConfig
from xfm.engine.job import scratch_path
from xfm.engine.members_plan import MEMBERS, Member
from xfm.engine.members_tokens import TokenStores
from xfm.engine.members_work import Done, Work, here, is_alone, work_on
from xfm.engine.progress import Progress
from xfm.engine.same_run import earlier_run
from xfm.engine.session import SPOOL, OpenJob
from xfm.engine.tables import RETRIES
from xfm.track.forward import child_links, finished_children, forward
from xfm.track.lineage import run_tags
from xfm.track.tracker import SpoolTracker

logger = logging.getLogger(__name__)


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

    def __str__(self) -> str:
        return f"{self.member.name}, seed {self.seed}"


@dataclass(slots=True)
class Ran:
    """What came of the members.

    Attributes:
        finished: those whose report is there.
        refused: the others, with the reason.
        links: the MLflow run of each finished one, by key; missing where it has not been sent.
    """

    finished: list[Entry] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)


def entries_of(members: Sequence[Member]) -> list[Entry]:
    """Seed by seed: when the first ones are done, there is a whole table of one seed."""
    seeds = sorted({seed for member in members for seed in member.configs})
    return [Entry(member, seed) for seed in seeds for member in members if seed in member.configs]


def is_finished(entry: Entry) -> bool:
    """Whether its report is there and its settings are those of now.

    Raises:
        Refused: OTHER_RUN, it was made with other settings.
    """
    storage = open_storage(entry.config.output)
    names = storage.names()
    if RUN not in names:
        return False
    content = storage.read(RUN)
    assert content is not None
    earlier = earlier_run(content, storage.place)["recipe"].get("config") or {}
    now = json.loads(json.dumps(entry.config.recipe()))
    if found := differing_fields(earlier, now):
        raise Refused("OTHER_RUN", f"{storage.place} holds member {entry} with other settings. Then -> now: "
                      f"{'; '.join(found[:10])}. Remove that folder, give another --output, or go back to the old "
                      "settings")  # fmt: skip
    return REPORT in names


def run_members(members: Sequence[Member], job: OpenJob) -> Ran:
    """Runs what is left.

    Args:
        members: of `plan_members`.
        job: the comparison.

    Raises:
        Refused: a member's OUTPUT was made with other settings; nothing has run then.
        EnvironmentProblem: no cluster.
    """
    entries = entries_of(members)
    done = {entry.key for entry in entries if is_finished(entry)}
    ran = Ran()
    spool = scratch_path(job.output.uri, SPOOL)
    told = finished_children(spool)
    for entry in entries:
        if entry.key in done:
            ran.finished.append(entry)
            if entry.key not in told:  # the comparison was killed between the two
                _close(_child(entry, job), entry, is_well=True)
    left = [entry for entry in entries if entry.key not in done]
    logger.info("members: %d of %d are finished already, %d are left", len(done), len(entries), len(left))
    if left:
        connect()
        with Progress("members", len(left), len(left), "members") as progress:
            for entry, end in _Crew(left, done, job).run():
                _note(ran, entry, end, progress)
                progress.add(1)
    order = {entry.key: number for number, entry in enumerate(entries)}
    ran.finished.sort(key=lambda entry: order[entry.key])
    ran.links = child_links(spool, [entry.key for entry in ran.finished])
    return ran


def describe_members(members: Sequence[Member]) -> str:
    """What `--dry-run` prints."""
    lines = []
    for member in members:
        entries = [Entry(member, seed) for seed in member.configs]
        left = sum(not is_finished(entry) for entry in entries)
        after = f", after {member.words.after}" if member.words.after else ""
        lines.append(f"member        {member.name}: {member.words.job}{after}, {len(entries)} seeds, {left} left")
    return "\n".join(lines)


def _note(ran: Ran, entry: Entry, end: Done, progress: Progress) -> None:
    count = f"{progress.done_shards + 1} of {progress.total}"
    if end.is_finished:
        logger.info("member %s (%s): finished after %.1f s", entry, count, end.seconds)
        ran.finished.append(entry)
        return
    code, message = end.refused or ("MEMBER_FAILED", f"its job ended with exit code {end.code}")
    logger.warning("member %s (%s): %s: %s", entry, count, code, message)
    ran.refused.append(Refusal(entry.place, entry.place, "member", code, message))


def _child(entry: Entry, job: OpenJob) -> SpoolTracker:
    return job.tracker.child(f"{entry.member.title}, seed {entry.seed}", key=entry.key)


def _close(child: SpoolTracker, entry: Entry, *, is_well: bool) -> None:
    """Tells what the member recorded."""
    storage = open_storage(entry.config.output)
    if (content := storage.read(RUN)) is not None:
        child.tags(run_tags(earlier_run(content, storage.place), storage.place))
    forward(scratch_path(entry.config.output, SPOOL), child)
    child.close("FINISHED" if is_well else "FAILED")


class _Crew:
    """Tasks side by side, as many as the cluster has CPUs."""

    def __init__(self, left: Sequence[Entry], done: set[str], job: OpenJob) -> None:
        self.waiting, self.done, self.job = list(left), set(done), job
        self.failed: set[str] = set()
        self.running: dict[Any, tuple[Entry, SpoolTracker, int]] = {}
        self.tokens = TokenStores(below(job.output.uri, MEMBERS))
        self.total = len(left)

    def run(self) -> Iterator[tuple[Entry, Done]]:
        """Each with its end, as they end."""
        import ray

        slots = max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]
        while self.waiting or self.running:
            while (entry := self._next(slots)) is not None:
                self.waiting.remove(entry)
                if (end := self._begin(entry)) is not None:
                    self.failed.add(entry.key)
                    yield entry, end
            if self.running:
                (task,), _ = ray.wait(list(self.running), num_returns=1)
                yield self._end(task)

    def _next(self, slots: int) -> Entry | None:
        """The first one that can begin now."""
        used = sum(cpus for _, _, cpus in self.running.values())
        for entry in self.waiting:
            before = entry.member.words.after
            if before is not None and f"{before}-seed-{entry.seed}" not in self.done | self.failed:
                continue
            if not self.running or used + _cpus(entry.config) <= slots:
                return entry
        return None

    def _begin(self, entry: Entry) -> Done | None:
        """Starts a task; what stands in the way comes back as its end."""
        import ray

        before = entry.member.words.after
        if before is not None and f"{before}-seed-{entry.seed}" in self.failed:
            return Done(4, 0.0, ("NOT_RUN", f"it starts from {before}, which has no checkpoint for this seed"))
        config: Any = entry.config
        job = entry.member.words.job
        try:
            work = Work(job, config, self._prepared(job, config), here())
        except Refused as problem:
            return Done(4, 0.0, (problem.code, problem.message))
        except EnvironmentProblem as problem:
            return Done(5, 0.0, ("ENVIRONMENT", str(problem)))
        # A member that starts workers of its own only waits for them: what it claimed would be theirs.
        cpus = config.threads if job != "evaluate" and is_alone(config) else 0
        task: Any = ray.remote(num_cpus=cpus, max_retries=RETRIES)(work_on)
        number = self.total - len(self.waiting)
        logger.info("member %s: begins, %d of %d", entry, number, self.total)
        self.running[task.remote(work)] = entry, _child(entry, self.job), _cpus(config)
        return None

    def _prepared(self, job: str, config: Any) -> Any:
        if job == "evaluate":
            return None
        return self.tokens.for_finetuning(config) if job == "finetune" else self.tokens.for_pretraining(config)

    def _end(self, task: Any) -> tuple[Entry, Done]:
        import ray

        entry, child, _ = self.running.pop(task)
        try:
            end: Done = ray.get(task)
        except ray.exceptions.RayError as problem:
            reason = [line.strip() for line in str(problem).splitlines() if line.strip()][-1]
            end = Done(5, 0.0, ("MEMBER_FAILED", reason))
        _close(child, entry, is_well=end.is_finished)
        (self.done if end.is_finished else self.failed).add(entry.key)
        return entry, end


def _cpus(config: Any) -> int:
    """That a member keeps busy."""
    return int((config.workers or 1) * getattr(config, "threads", 1))
