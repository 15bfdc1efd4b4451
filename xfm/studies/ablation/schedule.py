"""Runs the members of a comparison: what is left of them, several side by side, each in an OUTPUT of its own.

OUTPUT/members/NAME/seed-K/   a job's whole OUTPUT; its report.json says that it has finished
OUTPUT/members/tokens-FINGERPRINT/tokens/   rows as networks read them, shared (`engine.stage`)
OUTPUT/members/label_embeddings.parquet   vectors of the words in them, encoded once

A member is one Ray task that trains in its own process (`worker.py`): a group of Ray Train's workers would take
longer to start than a small network to train. A task whose process died is started again and continues from its last
checkpoint, and so does a comparison that was killed. What fails is reported, and the others go on.
"""

import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xfm.core.config import fingerprint
from xfm.core.errors import EnvironmentProblem, Refused
from xfm.core.ledger import REPORT, RUN, Refusal
from xfm.core.storage import below, open_storage
from xfm.engine.cluster import connect
from xfm.engine.job import scratch_path
from xfm.engine.learn import Prepared, plan_learning, planned_as, prepare, shared_tokens, task_of
from xfm.engine.learn_config import LearnConfig
from xfm.engine.progress import ProgressLog
from xfm.engine.resume_check import check_output, earlier_run
from xfm.engine.session import SPOOL, OpenJob
from xfm.engine.tables import RETRIES
from xfm.engine.train import place
from xfm.studies.ablation.finished import finished_of
from xfm.studies.ablation.plan import MEMBERS, Entry, Member, entries_of
from xfm.studies.ablation.worker import MemberResult, MemberTask, is_alone, work_on
from xfm.studies.evaluate.source import EMBEDDINGS
from xfm.track.forward import child_links, finished_children, forward
from xfm.track.lineage import run_tags
from xfm.track.tracker import SpoolTracker

logger = logging.getLogger(__name__)

SHORT = 12  # digits of a fingerprint in a folder's name


@dataclass(slots=True)
class Ran:
    """What came of the members."""

    finished: list[Entry] = field(default_factory=list)  # those whose report is there
    refused: list[Refusal] = field(default_factory=list)  # the others, with the reason
    # the MLflow run of each finished one, by key; missing where it has not been sent
    links: dict[str, str] = field(default_factory=dict)


def run_members(members: Sequence[Member], job: OpenJob) -> Ran:
    """Runs what is left.

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
        if entry.key in done and entry.key not in told:  # the comparison was killed between the two
            _close(_child(entry, job), entry, is_well=True)
    ran.finished += [entry for entry in entries if entry.key in done]
    left = [entry for entry in entries if entry.key not in done]
    logger.info("members: %d of %d are finished already, %d are left", len(done), len(entries), len(left))
    if left:
        connect()
        crew = _Crew(left, done, job)
        with ProgressLog("members", len(left), len(left), "members") as progress:
            for entry, end in crew.run():
                _note(ran, entry, end, progress)
                progress.add(1)
    ran.finished.sort(key=entries.index)
    ran.links = child_links(spool, [entry.key for entry in ran.finished])
    return ran


def describe_members(members: Sequence[Member]) -> str:
    """What `--dry-run` prints."""
    lines, done = [], finished_of(entries_of(members))
    for member in members:
        job, seeds = member.words.job, len(member.configs)
        left = sum(entry.key not in done for entry in entries_of([member]))
        after = f", after {member.words.after}" if member.words.after else ""
        lines.append(f"member        {member.name}: {job}{after}, {seeds} seeds, {left} left")
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
    if scratch_path(embeddings, SPOOL).exists():
        below_it = child.child(f"{entry.member.title}, seed {entry.seed}: {EMBEDDINGS}", key=EMBEDDINGS)
        _tell(below_it, embeddings)
        below_it.close("FINISHED" if open_storage(embeddings).size(REPORT) is not None else "FAILED")
    _tell(child, entry.config.output)
    child.close("FINISHED" if is_well else "FAILED")


def _tell(child: SpoolTracker, output: str) -> None:
    storage = open_storage(output)
    if (content := storage.read(RUN)) is not None:
        child.tags(run_tags(earlier_run(content, storage.place), storage.place))
    forward(scratch_path(output, SPOOL), child)


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
        job = entry.member.words.job
        try:
            prepared = None if job == "evaluate" else self.tokens.prepared_for(entry.config)
        except Refused as problem:
            return MemberResult(4, 0.0, (problem.code, problem.message))
        except EnvironmentProblem as problem:
            return MemberResult(5, 0.0, ("ENVIRONMENT", str(problem)))
        # A member that starts workers of its own only waits for them: what it claimed would be theirs.
        cpus = entry.config.threads if job != "evaluate" and is_alone(entry.config) else 0
        task: Any = ray.remote(num_cpus=cpus, max_retries=RETRIES)(work_on)
        logger.info("member %s: begins, %d of %d", entry, self.total - len(self.waiting), self.total)
        work = MemberTask(job, entry.config, prepared, os.getcwd())  # relative paths of settings mean this folder
        self.running[task.remote(work)] = entry, _child(entry, self.job)
        return None

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


@dataclass(frozen=True, slots=True)
class Need:
    """What a member keeps busy, and what a cluster has."""

    cpus: float
    gpus: float


def need_of(entry: Entry, have: Need) -> Need:
    """What a member keeps busy of the cluster that is connected; one without a number of workers takes a GPU each.

    Raises:
        EnvironmentProblem: its training asks for more than there is: its task would wait for ever.
    """
    config = entry.config
    if entry.member.words.job == "evaluate":  # its stages fit themselves to the cluster
        workers = config.workers or (max(1, int(have.gpus / config.gpus + 1e-9)) if config.gpus else 1)
        return Need(workers, workers * config.gpus)
    try:
        where = place(config.workers, config.gpus, config.threads)
    except EnvironmentProblem as problem:
        raise EnvironmentProblem(f"member {entry}: {problem}") from problem
    return Need(where.workers * where.cpus, where.workers * where.gpus)


def next_of(
    waiting: Sequence[Entry], ended: Collection[str], running: Collection[str], needs: Mapping[str, Need], have: Need
) -> Entry | None:
    """The first one that can begin now: what it starts from has ended (well or not), and there is room, or nothing else
    runs. Those that ended and run, and all needs, are by key; `have` is the cluster."""
    cpus = sum(needs[key].cpus for key in running)
    gpus = sum(needs[key].gpus for key in running)
    for entry in waiting:
        need, is_ready = needs[entry.key], entry.start is None or entry.start in ended
        # A sum of shares of GPUs may miss a whole by its last digit.
        has_room = cpus + need.cpus <= have.cpus and gpus + need.gpus <= have.gpus + 1e-9
        if is_ready and (has_room or not running):
            return entry
    return None


class TokenStores:
    """The stores of one comparison, below the members' folder. Prepares on the driver, each store once.

    What tokens are depends on the network that reads them only by its tokenizer. A network of embeddings and words
    leaves rows as they are, from whichever checkpoint it starts: there all members of one job, source and split share
    one store, however they train. What else members on the same rows have in common is for their tasks to say
    (`Task.share`).
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._prepared: dict[str, Prepared] = {}

    def prepared_for(self, config: LearnConfig) -> Prepared:
        """Rows, classes and split, with the plan of this very job.

        Raises:
            Refused: as `plan_learning` and `prepare`, or OUTPUT is another run's.
        """
        plan, task = plan_learning(config), task_of(config)
        check_output(config.output, plan.run["recipe"])
        tokens = shared_tokens(config, plan)
        extra = {
            name: {"source": each.source.recipe(), "columns": each.columns, "weights": plan.weights}  # type: ignore[attr-defined]
            for name, each in task.extra_sources().items()
        }
        # Members with other rows to measure forgetting on do not share a folder: these lie in it, too.
        store = fingerprint({"tokens": tokens, "extra": extra}) if extra else tokens
        place = below(self.uri, f"tokens-{store[:SHORT]}")
        fixed = {name: value for name, value in config.task.recipe().items() if name in {"kind", *task.fixed}}
        key = fingerprint({"store": store, "task": fixed, "bootstrap": config.bootstrap})
        if key not in self._prepared:
            self._prepared[key] = prepare(config.model_copy(update={"output": place}), plan, place)
        found = self._prepared[key]
        task.share(found.parts, self.uri, config.output)
        return planned_as(plan, found)
