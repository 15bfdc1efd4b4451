"""The commit protocol in a bucket, against a local S3 server."""

import hashlib
import json
import logging
import threading

import pyarrow as pa
import pytest
from pyarrow import fs

from xfm.core.errors import EnvironmentProblem, Refused
from xfm.core.ledger import Receipt, Refusal
from xfm.core.storage import open_storage
from xfm.engine.export import export
from xfm.engine.lease import ObjectLease
from xfm.engine.output import Output, write_part
from xfm.engine.session import OpenJob

BEAT_S = 0.4
RUN = {"job": "embed", "recipe": {"config": {"backbone": {"kind": "scgpt"}}}}
KEYS = ["s-0", "s-1"]


@pytest.fixture(scope="module")
def server():
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(server, monkeypatch, request):
    """A fresh prefix, reached through the environment alone."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{server}")
    fs.S3FileSystem(endpoint_override=server, scheme="http", allow_bucket_creation=True).create_dir("bucket")
    return f"s3://bucket/{request.node.name}"


def an_output(uri, **settings):
    return Output(uri, RUN, **({"beat_s": BEAT_S, "flush_s": 0.0} | settings))


def commit(output, key, refused=()):
    vectors = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 2.0, 3.0, 4.0], pa.float32()), 2)
    digest, size = write_part(output.uri, key, pa.table({"row_id": [f"{key}/0", f"{key}/1"], "cls_l00": vectors}))
    output.record(Receipt(key, 2, digest, size, 0.0, 1), [Refusal(key, row, "read", "NAN", "") for row in refused])


def keys(uri, name="manifest.jsonl"):
    return [json.loads(line)["key"] for line in (open_storage(uri).read(name) or b"").splitlines()]


def test_a_bucket_is_filled_resumed_and_exported(bucket, tmp_path):
    with an_output(bucket) as output:
        commit(output, "s-1", refused=["s-1/bad"])
        assert keys(bucket) == ["s-1"]
    write_part(bucket, "s-0", pa.table({"row_id": ["torn"]}))  # never recorded
    with an_output(bucket) as output:
        assert list(output.committed) == ["s-1"]
        assert list(open_storage(bucket).sizes("parts")) == ["s-1.parquet"]
        commit(output, "s-0")
        output.finish(KEYS)
        output.write_json("report.json", {"rows": 4})
        assert json.loads(output.local_copy("report.json", tmp_path).read_text()) == {"rows": 4}
    assert (keys(bucket), keys(bucket, "quarantine.jsonl")) == (KEYS, ["s-1/bad"])
    assert export(bucket, str(tmp_path / "a.h5ad")) == 4
    other = RUN | {"recipe": {"config": {"backbone": {"kind": "clip"}}}}
    with pytest.raises(Refused, match='"scgpt" -> "clip"'), Output(bucket, other, beat_s=BEAT_S):
        pass


def test_the_manifest_object_is_rewritten_now_and_then_and_at_the_end(bucket):
    with an_output(bucket, flush_s=60.0) as output:
        commit(output, "s-0")
        assert keys(bucket) == []
    assert keys(bucket) == ["s-0"]


def test_the_endpoint_can_stand_in_the_uri(bucket, server, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    uri = f"{bucket}?endpoint_override={server}&scheme=http&region=us-east-1"
    write_part(uri, "s-0", pa.table({"row_id": ["a"]}))
    assert list(open_storage(uri).sizes("parts")) == ["s-0.parquet"]
    assert server not in open_storage(uri).place


def test_a_missing_bucket_is_a_clear_problem(bucket):
    with pytest.raises(EnvironmentProblem, match=r"no-such-bucket.*(?i:bucket does not exist)"):
        an_output("s3://no-such-bucket/x").__enter__()


def test_a_second_writer_is_refused_while_the_first_one_lives(bucket):
    with an_output(bucket) as output:
        with pytest.raises(Refused, match="LOCKED"):
            an_output(bucket).__enter__()
        commit(output, "s-0")


def test_a_dead_writer_is_replaced_and_fenced_off(bucket):
    first = an_output(bucket).__enter__()
    commit(first, "s-0")
    first._lease._stop.set()  # the process stands still: no more beats
    first._lease._thread.join()
    with an_output(bucket) as second:
        assert list(second.committed) == ["s-0"]
        with pytest.raises(Refused, match="LEASE_LOST"):
            commit(first, "s-1")
        with pytest.raises(Refused, match="LEASE_LOST"):
            first.__exit__(None, None, None)  # nor on the way out
        commit(second, "s-1")
        second.finish(KEYS)
    assert keys(bucket) == KEYS


def test_of_writers_that_start_at_once_one_wins(bucket):
    leases = [ObjectLease(open_storage(bucket), 2.0) for _ in range(3)]
    refused, start = [], threading.Barrier(len(leases))

    def acquire(lease):
        start.wait()
        try:
            lease.acquire()
        except Refused as problem:
            refused.append(problem.code)

    threads = [threading.Thread(target=acquire, args=[lease]) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == ["LOCKED", "LOCKED"]
    for lease in leases:
        lease.release()


def test_a_checkpoint_reaches_the_bucket_with_its_subfolders_and_is_registered_there(bucket):
    job = OpenJob(None, None, {}, "", bucket)  # type: ignore[arg-type]
    registered = []
    job.register = lambda *made: registered.append(made)  # type: ignore[method-assign]

    def write(folder):
        (folder / "adapter").mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"trained")
        (folder / "adapter" / "config.json").write_bytes(b"{}")
        return "small"

    with an_output(bucket) as job.output:
        job.publish_checkpoint("clip", write)
    storage = open_storage(bucket)
    assert storage.read("checkpoint/model.safetensors") == b"trained"
    assert storage.read("checkpoint/adapter/config.json") == b"{}"
    digest = hashlib.sha256(b"trained").hexdigest()
    assert registered == [("clip", f"{bucket}/checkpoint", digest, "small")]
