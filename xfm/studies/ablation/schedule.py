"""Runs the members of a comparison: what is left of them, several side by side, each in an OUTPUT of its own.

OUTPUT/members/NAME/seed-K/   a job's whole OUTPUT; its report.json says that it has finished
OUTPUT/members/tokens-*/      rows as networks read them, shared (`tokens.py`)
OUTPUT/members/label_embeddings.parquet   vectors of the words in them, encoded once

A member is one Ray task that trains in its own process (`worker.py`): a group of Ray Train's workers would take
longer to start than a small network to train. A task whose process died is started again and continues from its last
checkpoint, and so does a comparison that was killed. What fails is reported, and the others go on.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xfm.core.errors import EnvironmentProblem, Refused
from xfm.core.ledger import REPORT, RUN, Refusal
from xfm.core.storage import below, open_storage
from xfm.engine.cluster import connect
from xfm.engine.job import scratch_path
from xfm.engine.progress import ProgressLog
from xfm.engine.resume_check import earlier_run
from xfm.engine.session import SPOOL, OpenJob
from xfm.engine.tables import RETRIES
from xfm.studies.ablation.entry import Entry, entries_of
from xfm.studies.ablation.finished import finished_of
from xfm.studies.ablation.plan import MEMBERS, Member
from xfm.studies.ablation.scheduler import Need, need_of, next_of
from xfm.studies.ablation.tokens import TokenStores
from xfm.studies.ablation.worker import MemberResult, MemberTask, here, is_alone, work_on
from xfm.studies.evaluate.source import EMBEDDINGS
from xfm.track.forward import child_links, finished_children, forward
from xfm.track.lineage import run_tags
from xfm.track.tracker import SpoolTracker

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Ran:
    """What came of the members."""

    finished: list[Entry] = field(default_factory=list)  # those whose report is there
    refused: list[Refusal] = field(default_factory=list)  # the others, with the reason
    # the MLflow run of each finished one, by key; missing where it has not been sent
    links: dict[str, str] = field(default_factory=dict)


def run_members(members: Sequence[Member], job: OpenJob) -> Ran:
    """Runs what is left.

    Args:
        members: of `plan_members`.
        job: the comparison.

    Raises:
        Refused: as `finished_of`; nothing has run then.
        EnvironmentProblem: no cluster, or one that is too small for a member; nothing has run then.
    """
    entries = entries_of(members)
    done = finished_of(entries)
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
        crew = _Crew(left, done, job)
        with ProgressLog("members", len(left), len(left), "members") as progress:
            for entry, end in crew.run():
                _note(ran, entry, end, progress)
                progress.add(1)
    order = {entry.key: number for number, entry in enumerate(entries)}
    ran.finished.sort(key=lambda entry: order[entry.key])
    ran.links = child_links(spool, [entry.key for entry in ran.finished])
    return ran


def describe_members(members: Sequence[Member]) -> str:
    """What `--dry-run` prints."""
    lines, done = [], finished_of(entries_of(members))
    for member in members:
        entries = [Entry(member, seed) for seed in member.configs]
        left = sum(entry.key not in done for entry in entries)
        after = f", after {member.words.after}" if member.words.after else ""
        lines.append(f"member        {member.name}: {member.words.job}{after}, {len(entries)} seeds, {left} left")
    return "\n".join(lines)


def _note(ran: Ran, entry: Entry, end: MemberResult, progress: ProgressLog) -> None:
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
    """Tells what the member recorded, and of an evaluation what embedding did, as a run below its own."""
    embeddings = below(entry.config.output, EMBEDDINGS)
    if _spool(embeddings).exists():
        below_it = child.child(f"{entry.member.title}, seed {entry.seed}: {EMBEDDINGS}", key=EMBEDDINGS)
        _tell(below_it, embeddings)
        below_it.close("FINISHED" if open_storage(embeddings).size(REPORT) is not None else "FAILED")
    _tell(child, entry.config.output)
    child.close("FINISHED" if is_well else "FAILED")


def _tell(child: SpoolTracker, output: str) -> None:
    storage = open_storage(output)
    if (content := storage.read(RUN)) is not None:
        child.tags(run_tags(earlier_run(content, storage.place), storage.place))
    forward(_spool(output), child)


def _spool(output: str) -> Path:
    return scratch_path(output, SPOOL)


class _Crew:
    """Tasks side by side, as many as the cluster has CPUs and GPUs for.

    Raises:
        EnvironmentProblem: as `need_of`.
    """

    def __init__(self, left: Sequence[Entry], done: set[str], job: OpenJob) -> None:
        import ray

        self.waiting, self.done, self.job = list(left), set(done), job
        self.failed: set[str] = set()
        self.running: dict[Any, tuple[Entry, SpoolTracker]] = {}
        found = ray.cluster_resources()  # type: ignore[no-untyped-call]
        self.have = Need(max(1.0, found.get("CPU", 1.0)), found.get("GPU", 0.0))
        self.needs = {entry.key: need_of(entry, self.have) for entry in left}
        self.tokens = TokenStores(below(job.output.uri, MEMBERS))
        self.total = len(left)

    def run(self) -> Iterator[tuple[Entry, MemberResult]]:
        """Each with its end, as they end."""
        import ray

        while self.waiting or self.running:
            while (entry := self._next()) is not None:
                self.waiting.remove(entry)
                if (end := self._begin(entry)) is not None:
                    self.failed.add(entry.key)
                    yield entry, end
            if self.running:
                (task,), _ = ray.wait(list(self.running), num_returns=1)
                yield self._end(task)

    def _next(self) -> Entry | None:
        running = [entry.key for entry, _ in self.running.values()]
        return next_of(self.waiting, self.done | self.failed, running, self.needs, self.have)

    def _begin(self, entry: Entry) -> MemberResult | None:
        """Starts a task; what stands in the way comes back as its end."""
        import ray

        if entry.start in self.failed:
            before = entry.member.words.after
            return MemberResult(4, 0.0, ("NOT_RUN", f"it starts from {before}, which has no checkpoint for this seed"))
        config: Any = entry.config
        job = entry.member.words.job
        try:
            work = MemberTask(job, config, self._prepared(job, config), here())
        except Refused as problem:
            return MemberResult(4, 0.0, (problem.code, problem.message))
        except EnvironmentProblem as problem:
            return MemberResult(5, 0.0, ("ENVIRONMENT", str(problem)))
        # A member that starts workers of its own only waits for them: what it claimed would be theirs.
        cpus = config.threads if job != "evaluate" and is_alone(config) else 0
        task: Any = ray.remote(num_cpus=cpus, max_retries=RETRIES)(work_on)
        number = self.total - len(self.waiting)
        logger.info("member %s: begins, %d of %d", entry, number, self.total)
        self.running[task.remote(work)] = entry, _child(entry, self.job)
        return None

    def _prepared(self, job: str, config: Any) -> Any:
        return None if job == "evaluate" else self.tokens.prepared_for(config)

    def _end(self, task: Any) -> tuple[Entry, MemberResult]:
        import ray

        entry, child = self.running.pop(task)
        try:
            end: MemberResult = ray.get(task)
        except ray.exceptions.RayError as problem:
            reason = [line.strip() for line in str(problem).splitlines() if line.strip()][-1]
            end = MemberResult(5, 0.0, ("MEMBER_FAILED", reason))
        _close(child, entry, is_well=end.is_finished)
        (self.done if end.is_finished else self.failed).add(entry.key)
        return entry, end
