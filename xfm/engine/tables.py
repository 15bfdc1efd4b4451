"""Independent pieces of work as Ray tasks: each computes one table, and its worker commits it as one part.

For work whose unit is not a shard of a source: a representation to judge, a baseline to compute. What can be resumed,
what a kill leaves behind and what a reader sees is the commit protocol's business (`output.py`), as for shards.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from xfm.core.errors import Refused
from xfm.core.ledger import Receipt, Refusal
from xfm.engine.cluster import connect
from xfm.engine.output import Output, write_part
from xfm.engine.progress import ProgressLog

logger = logging.getLogger(__name__)

Shared = TypeVar("Shared")
TASK_CPUS = 1.0
RETRIES = 3  # of a task whose worker died


@dataclass(frozen=True, slots=True)
class Made:
    """What a worker says of one piece: a committed part, or why there is none."""

    key: str
    rows: int = 0
    sha256: str = ""
    size: int = 0
    seconds: float = 0.0
    refused: tuple[str, str] | None = None


def run_tables(
    compute: Callable[[Shared, str], pa.Table],
    shared: Shared,
    keys: Sequence[str],
    output: Output,
    *,
    stage: str,
    unit: str,
    workers: int | None = None,
    gpus: float = 0.0,
    attempt: int = 1,
) -> list[Refusal]:
    """Computes what OUTPUT lacks, in any order, and brings the manifest into the order of `keys`.

    Args:
        compute: from what all share and one key to its table; runs on a worker, on one thread, and must be
            deterministic: a piece whose worker died is computed again.
        shared: sent to every worker once; must pickle.
        keys: the pieces; first those that take longest.
        workers: pieces computed at once; by default one a CPU.
        gpus: of each worker.

    Returns:
        The quarantine: one line for each piece that `compute` refused.
    """
    left = [key for key in keys if key not in output.committed]
    if len(left) < len(keys):
        logger.info("%s: %d of %d %s are committed already", stage, len(keys) - len(left), len(keys), unit)
    if left:
        connect()
        with ProgressLog(stage, len(left), len(left), unit) as progress:
            for made in _in_any_order(compute, shared, left, output.uri, workers, gpus):
                _record(output, made, stage, attempt)
                progress.add(1)
    output.finish(keys)
    return output.quarantined()


def _in_any_order(
    compute: Callable[[Shared, str], pa.Table],
    shared: Shared,
    keys: Sequence[str],
    uri: str,
    workers: int | None,
    gpus: float,
) -> Any:
    import ray

    task: Any = ray.remote(num_cpus=TASK_CPUS, num_gpus=gpus, max_retries=RETRIES)(_make)
    workers = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]
    reference, waiting = ray.put(shared), list(keys)
    running: list[Any] = []
    while waiting or running:
        while waiting and len(running) < workers:
            running.append(task.remote(compute, reference, waiting.pop(0), uri))
        done, running = ray.wait(running, num_returns=1)
        yield from ray.get(done)


def _make(compute: Callable[[Shared, str], pa.Table], shared: Shared, key: str, uri: str) -> Made:
    """Runs on a worker."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    started = time.monotonic()
    try:
        # The last digits of a matrix product depend on threads, and so would the part's bytes.
        with threadpool_limits(1):
            table = compute(shared, key)
    except Refused as problem:
        return Made(key, refused=(problem.code, problem.message))
    sha256, size = write_part(uri, key, table)
    return Made(key, table.num_rows, sha256, size, time.monotonic() - started)


def _record(output: Output, made: Made, stage: str, attempt: int) -> None:
    if made.refused is not None:
        code, message = made.refused
        logger.warning("%s refused: %s: %s", made.key, code, message)
        output.refuse_shard([Refusal(made.key, made.key, stage, code, message)])
        return
    output.record(Receipt(made.key, made.rows, made.sha256, made.size, made.seconds, attempts=attempt))
