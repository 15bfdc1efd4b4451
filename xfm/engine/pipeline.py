"""Shards through Ray: read and tokenise (CPU tasks) → compute (actors) → commit (CPU tasks) → receipts (driver).

One read task, one block, one row a shard: its tokens travel as the bytes of one cell of that row. So Ray can neither
split nor merge what belongs together, a shard without good rows still arrives, and every batch downstream is a function
of the shard alone.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from xfm.compute.read import read_tokens
from xfm.core.backbone import BackboneConfig
from xfm.core.errors import EnvironmentProblem, Refused
from xfm.core.source import Shard, Source
from xfm.engine.cluster import Place, gpu_workers
from xfm.engine.envelope import Envelope
from xfm.engine.output import write_part


class ShardDatasource(Datasource):
    """Reads and tokenises shards on CPU tasks; the recipes are opened in the task that uses them."""

    def __init__(self, source: Source, backbone: BackboneConfig, seed: int, shards: Sequence[Shard]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._shards = list(shards)
        # One copy in the object store instead of one in each of possibly tens of thousands of tasks.
        self._recipe = ray.put((source, backbone, seed))

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown until read."""
        return None

    def get_read_tasks(
        self,
        parallelism: int,  # noqa: ARG002
        per_task_row_limit: int | None = None,  # noqa: ARG002
        data_context: Any = None,  # noqa: ARG002
    ) -> list[ReadTask]:
        """One task a shard, whatever parallelism Ray would like."""
        metadata = BlockMetadata(num_rows=1, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(_reader(self._recipe, shard), metadata) for shard in self._shards]


def _reader(recipe: Any, shard: Shard) -> Callable[[], Iterable[pa.Table]]:
    def read() -> Iterable[pa.Table]:
        source, backbone, seed = ray.get(recipe)
        yield read_envelope(source, backbone, seed, shard).to_table()

    return read


def read_envelope(source: Source, backbone: BackboneConfig, seed: int, shard: Shard) -> Envelope:
    """A shard's tokens, or the reason why it has none."""
    started = time.monotonic()
    tokenizer = backbone.tokenizer(seed)
    try:
        result = read_tokens(source, tokenizer, shard)
    except Refused as problem:
        return Envelope(shard.key, shard.path, error=(problem.code, problem.message), stage="read")
    return Envelope(
        shard.key,
        shard.path,
        table=result.tokens,
        refused=result.refused,
        seconds={"read": time.monotonic() - started},
        notes=tokenizer.describe(),
    )


Compute = Callable[[pa.Table], pa.Table]


READ_CPUS = 0.2
COMMIT_CPUS = 0.1
ACTOR_SHARE = 0.8  # of all CPUs; the rest is for reading and committing


def plan(workers: int | None, gpus: float) -> Place:
    """Fits the workers to the cluster that is connected.

    On CPU machines an actor claims less than one CPU, so that reading, tokenising and committing always find room:
    actors that claim every CPU would wait for input for ever.

    Raises:
        EnvironmentProblem: fewer GPUs than asked for.
    """
    have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus = have.get("CPU", 0.0)
    if cpus < 1:
        raise EnvironmentProblem(f"the Ray cluster has {cpus:g} CPUs; a job needs at least 1")
    workers = gpu_workers(workers, gpus, have, "compute") if gpus else workers or max(1, int(cpus))
    return Place(workers, min(ACTOR_SHARE, ACTOR_SHARE * cpus / workers), gpus)


class ComputeActor:
    """One worker: builds the model once, then maps shard after shard."""

    def __init__(self, build: Callable[[], Compute], stage: str, device: str) -> None:
        import torch

        if device == "cpu":
            # One thread: results must not depend on how many workers share the machine.
            torch.set_num_threads(1)
        self.stage = stage
        self.problem: Refused | EnvironmentProblem | None = None
        try:
            self.compute = build()
        except (Refused, EnvironmentProblem) as problem:
            # Raised by the first call: of an actor that dies while it is made, Ray keeps a text only.
            self.problem = problem

    def __call__(self, row: pa.Table) -> pa.Table:
        """One envelope in, one out."""
        if self.problem is not None:
            raise self.problem
        envelope = Envelope.from_table(row)
        if envelope.error is None and envelope.table is not None:
            started = time.monotonic()
            try:
                envelope.table = self.compute(envelope.table)
            except Refused as problem:
                envelope.error, envelope.stage, envelope.table = (problem.code, problem.message), self.stage, None
            envelope.seconds[self.stage] = time.monotonic() - started
        return envelope.to_table()


def commit(row: pa.Table, *, output: str) -> pa.Table:
    """Writes a shard's part; what goes on to the driver is a few hundred bytes."""
    envelope = Envelope.from_table(row)
    if envelope.table is not None:
        started = time.monotonic()
        envelope.rows = envelope.table.num_rows
        envelope.sha256, envelope.size = write_part(output, envelope.key, envelope.table)
        envelope.seconds["commit"] = time.monotonic() - started
        envelope.table = None
    return envelope.to_table()


def run_shards(
    source: Source,
    backbone: BackboneConfig,
    seed: int,
    shards: Sequence[Shard],
    build: Callable[[], Compute],
    *,
    stage: str,
    output: str,
    where: Place,
) -> Iterator[Envelope]:
    """Runs shards and yields an envelope for each as it is committed or refused, in any order.

    Actors and tasks that die are restarted and their shards computed again; an exception of the code ends the job.
    """
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.max_errored_blocks = 0
    context.execution_options.preserve_order = False
    rows = ray.data.read_datasource(
        ShardDatasource(source, backbone, seed, shards), num_cpus=READ_CPUS, override_num_blocks=len(shards)
    )
    rows = rows.map_batches(
        ComputeActor,
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=where.workers, max_tasks_in_flight_per_actor=2),
        fn_constructor_kwargs={"build": build, "stage": stage, "device": where.device},
        num_cpus=where.cpus,
        num_gpus=where.gpus or None,
    )
    rows = rows.map_batches(
        commit, batch_size=None, batch_format="pyarrow", fn_kwargs={"output": output}, num_cpus=COMMIT_CPUS
    )
    for batch in rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for i in range(batch.num_rows):
            yield Envelope.from_table(batch.slice(i, 1))
