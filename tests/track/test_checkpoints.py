"""Checkpoints as versions of registered models: one for each run and content, whole without OUTPUT."""

import hashlib
import shutil
from pathlib import Path

import pytest

from xfm.track import checkpoints
from xfm.track.mlflow import send_pending, start_run

pytestmark = pytest.mark.usefixtures("mlflow_environment")

TAGS = {"xfm.fingerprint": "01" * 32, "xfm.data": "23" * 32, "xfm.datasets": "pbmc"}


def checkpoint(folder, weights):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "args.json").write_text("{}")
    return hashlib.sha256(weights).hexdigest()


def train(spool, store, name, place, digest):
    """A job that ends with one checkpoint; true where all was sent."""
    tracker = start_run(spool, "pretrain-0123abcd-1", uri=store, experiment="xfm/pretrain/pbmc", close_timeout_s=60.0)
    tracker.model(name, place, digest, tags=TAGS, description="4 blocks of width 64")
    return tracker.close()


def versions_of(client, name):
    return sorted(client.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version))


def test_a_version_has_its_lineage_and_its_files_even_where_output_is_gone(tmp_path, store, client):
    digest = checkpoint(tmp_path / "out/checkpoint", b"weights")
    assert train(tmp_path / "out/tracking.jsonl", store, "scgpt-pbmc", tmp_path / "out/checkpoint", digest)
    (version,) = versions_of(client, "scgpt-pbmc")
    assert version.tags == TAGS | {"xfm.weights": digest}
    assert version.description == "4 blocks of width 64"
    assert version.status == "READY"
    assert client.get_run(version.run_id).info.run_name == "pretrain-0123abcd-1"
    assert client.get_registered_model("scgpt-pbmc").aliases == {}  # nothing was compared: nothing is crowned
    shutil.rmtree(tmp_path / "out")

    import mlflow

    mlflow.set_tracking_uri(store)
    copy = mlflow.artifacts.download_artifacts(artifact_uri="models:/scgpt-pbmc/latest", dst_path=str(tmp_path / "in"))
    mlflow.set_tracking_uri(None)
    assert (tmp_path / "in" / "model.safetensors").read_bytes() == b"weights"
    assert (tmp_path / "in" / "args.json").exists()
    assert copy.startswith(str(tmp_path / "in"))


def test_a_rerun_and_a_second_sending_make_no_second_version_but_other_weights_do(tmp_path, store, client):
    spool, folder = tmp_path / "tracking.jsonl", tmp_path / "checkpoint"
    digest = checkpoint(folder, b"first")
    for _ in range(2):
        assert train(spool, store, "scgpt-again", folder, digest)
    (tmp_path / "tracking.sent.json").unlink()  # as if every acknowledgement had been lost
    assert send_pending(spool, store).refused == []
    assert len(versions_of(client, "scgpt-again")) == 1
    longer = checkpoint(folder, b"second")
    assert train(spool, store, "scgpt-again", folder, longer)
    first, second = versions_of(client, "scgpt-again")
    assert [first.tags["xfm.weights"], second.tags["xfm.weights"]] == [digest, longer]
    # The first version still names the first weights.
    kept = client.download_artifacts(first.run_id, f"checkpoint/{digest[:12]}/model.safetensors", str(tmp_path))
    assert Path(kept).read_bytes() == b"first"
    # The same weights from another job are another version: its lineage is its own.
    assert train(tmp_path / "other.jsonl", store, "scgpt-again", folder, longer)
    assert len({version.run_id for version in versions_of(client, "scgpt-again")}) == 2


def test_weights_that_changed_before_they_were_sent_are_not_registered_as_what_they_were(tmp_path, store, client):
    digest = checkpoint(tmp_path / "checkpoint", b"before")
    checkpoint(tmp_path / "checkpoint", b"after")
    assert train(tmp_path / "tracking.jsonl", store, "scgpt-changed", tmp_path / "checkpoint", digest)
    assert versions_of(client, "scgpt-changed") == []
    (refused,) = send_pending(tmp_path / "tracking.jsonl").refused
    assert "has changed since" in refused
    shutil.rmtree(tmp_path / "checkpoint")
    (refused,) = send_pending(tmp_path / "tracking.jsonl").refused
    assert "not there any more" in refused


def test_what_lies_in_a_bucket_or_is_too_large_to_copy_is_named_by_its_place(tmp_path, store, client, monkeypatch):
    assert train(tmp_path / "a.jsonl", store, "scgpt-bucket", "s3://me:canary@bucket/run/checkpoint", "ab" * 32)
    (version,) = versions_of(client, "scgpt-bucket")
    assert version.source == "s3://***@bucket/run/checkpoint"
    monkeypatch.setattr(checkpoints, "LARGEST_COPY", 10)
    digest = checkpoint(tmp_path / "checkpoint", b"more than ten bytes")
    assert train(tmp_path / "b.jsonl", store, "scgpt-large", tmp_path / "checkpoint", digest)
    (version,) = versions_of(client, "scgpt-large")
    assert version.source == (tmp_path / "checkpoint").as_uri()
    assert client.list_artifacts(version.run_id) == []


@pytest.mark.parametrize("name", ["owner/model:x", "../up", "", "a" * 500])
def test_names_are_made_fit_for_the_registry(name):
    from mlflow.utils.validation import _validate_model_name

    _validate_model_name(checkpoints.model_name(name))
    assert len(checkpoints.model_name(name)) <= 200
