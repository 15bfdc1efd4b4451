"""Which member of a comparison may begin: what each keeps busy, and what the cluster has."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xfm.core.errors import EnvironmentProblem
from xfm.engine.train import place
from xfm.studies.ablation.entry import Entry


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
    config: Any = entry.config
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
    """The first one that can begin now: what it starts from has ended, and there is room, or nothing else runs.

    Args:
        waiting: in order.
        ended: keys, well or not.
        running: keys.
        needs: of all, by key.
        have: the cluster.
    """
    cpus = sum(needs[key].cpus for key in running)
    gpus = sum(needs[key].gpus for key in running)
    for entry in waiting:
        if entry.start is not None and entry.start not in ended:
            continue
        need = needs[entry.key]
        # A sum of shares of GPUs may miss a whole by its last digit.
        if not running or (cpus + need.cpus <= have.cpus and gpus + need.gpus <= have.gpus + 1e-9):
            return entry
    return None
