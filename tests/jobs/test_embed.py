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


def test_one_worker_gives_the_same_bytes_as_two(cluster, undisturbed, flags, tmp_path):
    words = flags(tmp_path / "out", **{"source.shard_rows": 4, "source.obs": "bulk_labels", "workers": 1})
    cluster.run("embed", *words, cwd=tmp_path)
    assert manifest(tmp_path / "out") == manifest(undisturbed)


def test_shards_batches_and_order_do_not_change_an_embedding(cluster, undisturbed, flags, tmp_path, tiny_scgpt):
    expected = read(undisturbed)
    cluster.run("embed", *flags(tmp_path / "one", **{"batch_tokens": 1}), cwd=tmp_path)
    assert len(manifest(tmp_path / "one")) == 1
    same_embeddings(read(tmp_path / "one"), expected)
    anndata.read_h5ad(tiny_scgpt / "cells.h5ad")[::-1].copy().write_h5ad(tmp_path / "reversed.h5ad")
    words = flags(tmp_path / "reversed", tmp_path / "reversed.h5ad", **{"source.shard_rows": 10, "batch_tokens": 100_000})
    cluster.run("embed", *words, cwd=tmp_path)
    assert len(manifest(tmp_path / "reversed")) == 7
    same_embeddings(read(tmp_path / "reversed"), expected)


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


def test_a_killed_driver_continues_and_a_second_one_is_kept_out(cluster, undisturbed, flags, tmp_path):
    words = flags(tmp_path / "out", **{"source.shard_rows": 4, "source.obs": "bulk_labels"})
    first = cluster.start("embed", *words, cwd=tmp_path)
    wait_for(lambda: (tmp_path / "out" / "run.json").exists(), first)
    second = cluster.run("embed", *words, cwd=tmp_path, expect=4)
    assert "LOCKED" in second
    assert str(first.pid) in second
    wait_for(lambda: committed(tmp_path / "out") >= 1, first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not (tmp_path / "out" / "report.json").exists()
    cluster.run("embed", *words, cwd=tmp_path)
    assert manifest(tmp_path / "out") == manifest(undisturbed)
    assert read(tmp_path / "out").equals(read(undisturbed))
    again = cluster.run("embed", *words, cwd=tmp_path)
    assert "16 of 16 shards are committed already" in again
    changed = cluster.run("embed", *words, "--pools", "cls", cwd=tmp_path, expect=4)
    assert "OTHER_RUN" in changed
    assert "pools" in changed


def test_a_killed_actor_is_replaced_and_nothing_is_lost_or_doubled(cluster, undisturbed, flags, tmp_path):
    words = flags(tmp_path / "out", **{"source.shard_rows": 4, "source.obs": "bulk_labels"})
    job = cluster.start("embed", *words, cwd=tmp_path)
    actor = wait_for(lambda: next((p for p in psutil.process_iter(["name", "cmdline"]) if is_compute_actor(p)), None), job)
    os.kill(actor.pid, signal.SIGKILL)
    output, _ = job.communicate(timeout=240)
    assert job.returncode == 0, output
    assert manifest(tmp_path / "out") == manifest(undisturbed)


def is_compute_actor(process):
    return any("ComputeActor" in word for word in process.info["cmdline"] or ())


def test_sigterm_ends_with_143_and_leaves_a_run_that_continues(cluster, undisturbed, flags, tmp_path):
    words = flags(tmp_path / "out", **{"source.shard_rows": 4, "source.obs": "bulk_labels"})
    job = cluster.start("embed", *words, cwd=tmp_path)
    wait_for(lambda: committed(tmp_path / "out") >= 1, job)
    job.send_signal(signal.SIGTERM)
    output, _ = job.communicate(timeout=120)
    assert job.returncode == 143, output
    cluster.run("embed", *words, cwd=tmp_path)
    assert manifest(tmp_path / "out") == manifest(undisturbed)
