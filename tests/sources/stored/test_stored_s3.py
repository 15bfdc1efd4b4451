"""Stored embeddings in a bucket, against a local S3 server that counts the bytes it gives."""

import logging

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import fs

from xfm.core.ledger import Receipt
from xfm.engine.output import Output, write_part
from xfm.sources.stored.source import open_embeddings

ROWS, WIDTH = 300, 400
RUN = {"job": "embed", "recipe": {"config": {"backbone": {"kind": "scgpt"}}}}


@pytest.fixture
def bucket(monkeypatch):
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    store = fs.S3FileSystem(endpoint_override=f"{host}:{port}", scheme="http", allow_bucket_creation=True)
    store.create_dir("bucket")
    yield "s3://bucket/runs/cells"
    server.stop()


class Counted:
    """A storage whose streams remember how far they were read."""

    def __init__(self, storage):
        self._storage, self.bytes = storage, 0

    def __getattr__(self, name):
        return getattr(self._storage, name)

    def open(self, name):
        return pa.PythonFile(_Counting(self, self._storage.open(name)), mode="r")


class _Counting:
    def __init__(self, owner, stream):
        self._owner, self._stream = owner, stream
        self.closed = False

    def read(self, size=-1):
        data = self._stream.read(size)
        self._owner.bytes += len(data)
        return data

    def seek(self, offset, whence=0):
        return self._stream.seek(offset, whence)

    def tell(self):
        return self._stream.tell()

    def close(self):
        self.closed = True
        self._stream.close()


def test_a_column_in_a_bucket_costs_its_own_bytes(bucket, monkeypatch):
    from xfm.sources.stored import output as stored_output

    rng = np.random.default_rng(0)
    written = {f"cls_l{layer:02d}": rng.normal(size=(2 * ROWS, WIDTH)).astype("f4") for layer in range(8)}
    with Output(bucket, RUN, beat_s=0.4) as output:
        for number, key in enumerate("ab"):
            part = slice(number * ROWS, (number + 1) * ROWS)
            vectors = {
                name: pa.FixedSizeListArray.from_arrays(pa.array(values[part].ravel()), WIDTH)
                for name, values in written.items()
            }
            table = pa.table({"row_id": [f"{key}{row}" for row in range(ROWS)], **vectors})
            digest, size = write_part(output.uri, key, table)
            output.record(Receipt(key, ROWS, digest, size, 0.0, 1))
        output.finish(["a", "b"])
        output.write_json("report.json", {})
    stored = open_embeddings(bucket)
    counted = Counted(stored_output.open_storage(bucket))
    monkeypatch.setattr(stored_output, "open_storage", lambda uri: counted)
    np.testing.assert_array_equal(stored.read("cls_l05"), written["cls_l05"])
    one = written["cls_l05"].nbytes
    assert 0.5 * one < counted.bytes < 2 * one
    assert stored.row_ids()[ROWS - 1 :][:2] == ["a299", "b0"]
    assert stored.place == "s3://bucket/runs/cells"
