"""A small job that can be told to die: `python commit_driver.py OUTPUT STEP`. Five shards, one refused row, one
refused shard. STEP names a system call on a file; the process kills itself before, in the middle of or after it."""

import os
import signal
import sys

import numpy as np
import pyarrow as pa

from xfm.core.ledger import Receipt, Refusal
from xfm.engine.output import Output, write_part

KEYS = [f"s-{i}" for i in range(5)]
RUN = {"job": "embed", "recipe": {"config": {"backbone": {"kind": "scgpt"}}}}
# call, end of the file's path (a leading dot: the temporary file), a word in the data, when, in which phase
STEPS = {
    "part: in its bytes": ("write", ".s-2.parquet", b"", "middle", "shards"),
    "part: before its rename": ("replace", "/s-2.parquet", b"", "before", "shards"),
    "part: after its rename": ("replace", "/s-2.parquet", b"", "after", "shards"),
    "quarantine: before its line": ("write", "/quarantine.jsonl", b'"s-2"', "before", "shards"),
    "quarantine: in its line": ("write", "/quarantine.jsonl", b'"s-2"', "middle", "shards"),
    "quarantine: after its line": ("write", "/quarantine.jsonl", b'"s-2"', "after", "shards"),
    "quarantine: in the line of a refused shard": ("write", "/quarantine.jsonl", b'"s-3"', "middle", "shards"),
    "manifest: before its line": ("write", "/manifest.jsonl", b'"s-2"', "before", "shards"),
    "manifest: in its line": ("write", "/manifest.jsonl", b'"s-2"', "middle", "shards"),
    "manifest: after its line": ("write", "/manifest.jsonl", b'"s-2"', "after", "shards"),
    "start: in run.json": ("write", ".run.json", b"", "middle", "start"),
    "start: after run.json": ("replace", "/run.json", b"", "after", "start"),
    "start: before the manifest": ("replace", "/manifest.jsonl", b"", "before", "start"),
    "finish: in the quarantine": ("write", ".quarantine.jsonl", b"", "middle", "finish"),
    "finish: between quarantine and manifest": ("replace", "/quarantine.jsonl", b"", "after", "finish"),
    "finish: in the manifest": ("write", ".manifest.jsonl", b"", "middle", "finish"),
    "finish: before the manifest's rename": ("replace", "/manifest.jsonl", b"", "before", "finish"),
    "finish: after the manifest's rename": ("replace", "/manifest.jsonl", b"", "after", "finish"),
}
phase = "start"


def die_at(step: str) -> None:
    """Replaces the system call of a step by one that kills the process."""
    call, place, word, when, in_phase = STEPS[step]
    real = getattr(os, call)

    def is_it(path: str, data: bytes) -> bool:
        there = path.endswith(place) or (place.startswith(".") and f"/{place}." in path)
        return there and word in data and phase == in_phase

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def write(file: int, data: memoryview) -> int:
        if not is_it(os.readlink(f"/proc/self/fd/{file}"), bytes(data)):
            return real(file, data)
        length = {"before": 0, "middle": len(data) // 2, "after": len(data)}[when]
        real(file, bytes(data)[:length])
        die()
        raise AssertionError

    def replace(source: object, target: object) -> None:
        hit = is_it(str(target), b"")
        if hit and when == "before":
            die()
        real(source, target)
        if hit:
            die()

    setattr(os, call, {"write": write, "replace": replace}[call])


def work(output_uri: str) -> None:
    """The job. Shards finish in another order than they are listed in."""
    global phase
    phase = "start"
    with Output(output_uri, RUN) as output:
        phase = "shards"
        for key in (KEYS[4], *KEYS[:4]):
            if key in output.committed:
                continue
            if key == "s-3":
                output.refuse_shard([Refusal(key, "d.h5ad", "read", "H5_TRUNCATED", "cut")])
                continue
            rng = np.random.default_rng(int(key[-1]))
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=600).astype("f4")), 100)
            digest, size = write_part(output.uri, key, pa.table({"row_id": list("abcdef"), "cls_l00": vectors}))
            refusals = [Refusal(key, f"{key}/{i}", "read", "NAN", "NaN in X") for i in range(2)] if key == "s-2" else []
            output.record(Receipt(key, 6, digest, size, seconds=0.0, attempts=1), refusals)
        phase = "finish"
        output.finish(KEYS)


if __name__ == "__main__":
    die_at(sys.argv[2])
    work(sys.argv[1])
