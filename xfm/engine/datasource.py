"""A source's shards as Ray Data read tasks: one task, one block, one row a shard.

A shard's tokens travel as the bytes of one cell of that row. So Ray can neither split nor merge what belongs
together, a shard without good rows still arrives, and every batch downstream is a function of the shard alone.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa
import ray
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from xfm.compute.read import read_tokens
from xfm.core.backbone import BackboneConfig
from xfm.core.errors import Refused
from xfm.core.source import Shard, Source
from xfm.engine.envelope import Envelope


class ShardDatasource(Datasource):
    """Reads and tokenises on CPU tasks.

    Args:
        source, backbone, seed: recipes; opened in the task that uses them.
        shards: what is left to do.
    """

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
