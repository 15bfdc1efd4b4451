"""The embed job as a user runs it: results, invariance, kills, bad input, exit codes."""

import json
import os
import signal
import time

import anndata
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xfm.compute.embed import Embedder
from xfm.compute.read import read_tokens
from xfm.models.reductions import Pool
from xfm.models.scgpt.config import ScGPT
from xfm.sources.h5ad.source import H5ad

pytestmark = pytest.mark.ray


@pytest.fixture
def flags(tiny_scgpt):
    def build(output, path=tiny_scgpt / "cells.h5ad", **more):
        settings = {
            "source.kind": "h5ad",
            "source.path": path,
            "backbone.kind": "scgpt",
            "backbone.checkpoint": tiny_scgpt / "checkpoint",
            "output": output,
        } | more
        return [word for name, value in settings.items() for word in (f"--{name}", str(value))]

    return build


def read(output):
    """All parts of an OUTPUT as one table, in the order of their names."""
    return pa.concat_tables([pq.read_table(part) for part in sorted((output / "parts").glob("*.parquet"))])


def matrix(table, column):
    return np.stack(table[column].to_pylist())


def manifest(output):
    """What must not depend on kills: key, rows and hash of every line, in order."""
    lines = [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]
    return [(line["key"], line["rows"], line["sha256"]) for line in lines]


@pytest.fixture(scope="module")
def undisturbed(cluster, tmp_path_factory, tiny_scgpt):
    """One run with 16 shards on 2 workers: what every other way to cut the work is held against."""
    folder = tmp_path_factory.mktemp("undisturbed")
    words = ["--source.kind", "h5ad", "--source.path", str(tiny_scgpt / "cells.h5ad"), "--source.shard_rows", "4",
             "--backbone.kind", "scgpt", "--backbone.checkpoint", str(tiny_scgpt / "checkpoint"),
             "--source.obs", "bulk_labels", "--output", str(folder / "out")]  # fmt: skip
    cluster.run("embed", *words, cwd=folder)
    return folder / "out"


def same_embeddings(a, b):
    a, b = a.sort_by("row_id"), b.sort_by("row_id")
    assert a["row_id"].to_pylist() == b["row_id"].to_pylist()
    for column in a.column_names:
        if column.startswith(("cls_l", "mean_l")):
            # fp32: sums of a cell's numbers in another order differ in the last digits.
            np.testing.assert_allclose(matrix(a, column), matrix(b, column), atol=1e-5, rtol=0)


def test_the_last_layer_is_the_official_cell_embedding(undisturbed, tiny_scgpt):
    reference = np.load(tiny_scgpt / "reference.npz", allow_pickle=False)
    table = read(undisturbed)
    rows = {name: i for i, name in enumerate(table["row_id"].to_pylist())}
    order = [rows[str(name)] for name in reference["barcodes"]]
    cls = matrix(table, "cls_l12")[order]
    cls /= np.linalg.norm(cls, axis=1, keepdims=True)
    np.testing.assert_allclose(cls, reference["cell_embedding_u05"], atol=1e-5)


def test_what_the_job_leaves_behind(undisturbed, tiny_scgpt):
    cells = anndata.read_h5ad(tiny_scgpt / "cells.h5ad")
    table = read(undisturbed)
    assert table["row_id"].to_pylist() == list(cells.obs_names)
    assert table["bulk_labels"].to_pylist() == list(cells.obs["bulk_labels"].astype(str))
    layers = [f"{pool}_l{layer:02d}" for pool in ("cls", "mean") for layer in range(13)]
    assert table.column_names == ["row_id", "bulk_labels", *layers]
    assert table.schema.field("cls_l07").type == pa.list_(pa.float32(), 32)
    report = json.loads((undisturbed / "report.json").read_text())
    assert report["numbers"]["rows"] == 64
    run = json.loads((undisturbed / "run.json").read_text())
    assert run["fingerprint"]
    assert run["recipe"]["weights"]["best_model.pt"]
    assert (undisturbed / "report.html").stat().st_size > 1000
    assert (undisturbed / "quarantine.jsonl").read_text() == ""


@pytest.mark.slow
@pytest.mark.parametrize(("shard_rows", "batch_tokens", "is_reversed"), [(64, 1, False), (10, 100_000, True)])
def test_shards_batches_and_order_do_not_change_an_embedding(
    undisturbed, tmp_path, tiny_scgpt, shard_rows, batch_tokens, is_reversed
):
    """The same recipe without Ray: what the cluster computed must not depend on it either."""
    path = tiny_scgpt / "cells.h5ad"
    if is_reversed:
        path = tmp_path / "cells.h5ad"
        anndata.read_h5ad(tiny_scgpt / "cells.h5ad")[::-1].copy().write_h5ad(path)
    source = H5ad(path=str(path), shard_rows=shard_rows)
    backbone = ScGPT(checkpoint=str(tiny_scgpt / "checkpoint"))
    pools = (Pool("cls"), Pool("mean"))
    embedder = Embedder(backbone, pools, range(13), batch_tokens=batch_tokens, device="cpu", seed=0)
    tokenizer = backbone.tokenizer(0)
    parts = [embedder(read_tokens(source, tokenizer, shard).tokens) for shard in source.shards()]
    assert len(parts) == -(-64 // shard_rows)
    same_embeddings(pa.concat_tables(parts), read(undisturbed))


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        assert process.poll() is None, f"ended early:\n{process.communicate()[0]}"
        time.sleep(0.02)
    return value


def committed(output):
    path = output / "manifest.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


@pytest.mark.slow
def test_a_job_that_lost_an_actor_its_driver_and_its_patience_ends_like_an_undisturbed_one(
    cluster, undisturbed, flags, tmp_path
):
    out = tmp_path / "out"
    words = flags(out, **{"source.shard_rows": 4, "source.obs": "bulk_labels"})
    first = cluster.start("embed", *words, cwd=tmp_path)
    wait_for(lambda: (out / "run.json").exists(), first)
    first.send_signal(signal.SIGSTOP)  # however long the second takes to start, the first is still there
    second = cluster.run("embed", *words, cwd=tmp_path, expect=4)
    first.send_signal(signal.SIGCONT)
    assert "LOCKED" in second
    assert str(first.pid) in second
    actor = wait_for(compute_actor, first)
    os.kill(actor, signal.SIGKILL)
    wait_for(lambda: committed(out) >= 1, first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not (out / "report.json").exists()

    third = cluster.start("embed", *words, cwd=tmp_path)
    done = committed(out)
    wait_for(lambda: committed(out) > done, third)
    third.send_signal(signal.SIGTERM)
    printed, _ = third.communicate(timeout=120)
    assert third.returncode == 143, printed
    assert "Traceback" not in printed

    cluster.run("embed", *words, "--workers", "1", cwd=tmp_path)
    assert manifest(out) == manifest(undisturbed)
    assert read(out).equals(read(undisturbed))
    again = cluster.run("embed", *words, cwd=tmp_path)
    assert "16 of 16 shards are committed already" in again
    changed = cluster.run("embed", *words, "--pools", "cls", cwd=tmp_path, expect=4)
    assert "OTHER_RUN" in changed
    assert "pools" in changed


def compute_actor():
    """The process id of an actor that holds a model, once there is one."""
    for process in psutil.process_iter(["cmdline"]):
        if any("ComputeActor" in word for word in process.info["cmdline"] or ()):
            return process.pid
    return None
