"""How long an evaluation takes and how much memory it needs: as many synthetic cells, layers and poolings as asked for.

python jobs/bench_evaluate.py

Writes embeddings as an embed job would, runs `jobs/evaluate.py` on them in this process, and samples the memory of the
driver, of Ray and of all workers together (proportional set size: shared pages count once).
"""

import os
import tempfile
import threading
import time
from pathlib import Path

import evaluate
import numpy as np
import pyarrow as pa
from pydantic import PositiveInt

from xfm.core.config import Config
from xfm.core.ledger import Receipt
from xfm.core.schema import ROW_ID, layer_column
from xfm.engine.job import main, say
from xfm.engine.output import Output, write_part

POOLS = ("cls", "mean")


class Bench(Config):
    """Times one evaluation of synthetic embeddings: probe, kNN and clustering of every layer and combination."""

    cells: PositiveInt = 20_000
    """Rows."""

    layers: PositiveInt = 12
    """Blocks of the network; one more state is stored, in two poolings."""

    dim: PositiveInt = 512
    """Width of a state."""

    classes: PositiveInt = 15
    """Cell types."""

    donors: PositiveInt = 200
    """Groups of cells."""

    workers: PositiveInt | None = None
    """As of `jobs/evaluate.py`."""


def run(bench: Bench) -> int:
    """Writes, evaluates, reports."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "embeddings")
        write_embeddings(folder, bench)
        size = sum(path.stat().st_size for path in folder.rglob("*.parquet")) / 1e9
        say(f"{bench.cells:,} cells x {bench.layers + 1} layers x {len(POOLS)} poolings x {bench.dim}: {size:.1f} GB")
        with Memory() as memory:
            started = time.monotonic()
            code = evaluate.run(
                evaluate.EvaluateJob(
                    embeddings=str(folder), labels=("cell_type",), group="donor_id",
                    output=str(Path(scratch, "judged")), cells=bench.cells, workers=bench.workers,
                    baselines=("majority", "chance"),
                )
            )  # fmt: skip
            took = time.monotonic() - started
    say(f"\n{bench.cells:,} cells, {os.cpu_count()} cores: {took / 60:.1f} min, {memory.peak / 1e9:.1f} GB at the peak")
    return code


def write_embeddings(folder: Path, bench: Bench) -> None:
    """As `embed` writes them; the middle layer tells cell types best."""
    rng = np.random.default_rng(0)
    types = rng.integers(0, bench.classes, bench.cells)
    donors = rng.integers(0, bench.donors, bench.cells)
    centres = rng.standard_normal((bench.classes, bench.dim)).astype(np.float32)
    best = bench.layers // 2
    run = {"job": "embed", "recipe": {"job": "embed", "synthetic": bench.model_dump()}}
    with Output(str(folder), run) as output:
        rows = np.array_split(np.arange(bench.cells), max(1, bench.cells // 1000))
        keys = [f"synthetic-{number:06d}" for number in range(len(rows))]
        for key, part in zip(keys, rows, strict=True):
            table = pa.table(
                {
                    ROW_ID: [f"cell{row}" for row in part],
                    "cell_type": [f"type {types[row]:02d}" for row in part],
                    "donor_id": [f"donor {donors[row]:02d}" for row in part],
                }
            )
            for pool in POOLS:
                for layer in range(bench.layers + 1):
                    told = 0.25 / (1 + abs(layer - best))
                    values = rng.standard_normal((len(part), bench.dim), np.float32) + told * centres[types[part]]
                    vectors = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), bench.dim)
                    table = table.append_column(layer_column(pool, layer), vectors)
            sha256, size = write_part(output.uri, key, table)
            output.record(Receipt(key, len(part), sha256, size, 0.0, 1))
        output.finish(keys)
        output.write_json("report.json", {})


class Memory:
    """Samples the memory of this process and all its descendants."""

    def __init__(self, every_s: float = 0.5) -> None:
        self.every_s, self.peak = every_s, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_problem: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(self.every_s):
            self.peak = max(self.peak, sum(pss(process) for process in family(os.getpid())))


def family(root: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, new = [root], [root]
    while new:
        new = [child for process in new for child in children.get(process, [])]
        found += new
    return found


def pss(process: int) -> int:
    """Bytes; 0 for one that ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


if __name__ == "__main__":
    main(Bench, run, "bench_evaluate")
