"""Files of a Hub data set, through a stand-in for the Hub client that serves a folder."""

import gzip
import hashlib
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.errors import RepositoryNotFoundError

from xfm.core.errors import EnvironmentProblem, Refused
from xfm.sources.h5ad.source import H5ad
from xfm.sources.paths import Address, parse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub that holds one data set, owner/cells, at one commit."""
    root = tmp_path / "hub"
    root.mkdir()

    class Hub:
        def dataset_info(self, repo, revision=None):
            if repo == "owner/offline":
                raise ConnectionError("no route")
            if repo != "owner/cells" or revision not in (None, "main", COMMIT):
                raise RepositoryNotFoundError(
                    "404", response=SimpleNamespace(headers={}, request=None, status_code=404)
                )
            return SimpleNamespace(sha=COMMIT)

        def list_repo_tree(self, repo, *, recursive, revision, repo_type):
            assert (revision, repo_type, recursive) == (COMMIT, "dataset", True)
            for file in sorted(root.rglob("*")):
                path = file.relative_to(root).as_posix()
                if file.is_dir():
                    yield SimpleNamespace(path=path)
                    continue
                sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
                yield SimpleNamespace(path=path, size=1, blob_id="b", lfs=SimpleNamespace(sha256=sha256))

        def hf_hub_download(self, repo, filename, *, repo_type, revision, local_dir):
            assert revision == COMMIT
            target = Path(local_dir) / filename
            target.parent.mkdir(parents=True, exist_ok=True)
            return str(shutil.copy(root / filename, target))

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    return root


def test_addresses_are_taken_apart():
    assert parse("hf://datasets/a/b") == parse("hf://a/b") == Address("a/b", None, "")
    assert parse("hf://datasets/a/b@v1/x/*.h5ad.gz") == Address("a/b", "v1", "x/*.h5ad.gz")
    with pytest.raises(Refused, match="BAD_ADDRESS"):
        parse("hf://a")


def test_hub_files_are_read_at_one_commit_and_leave_nothing_behind(hub, make, dense, counts, tmp_path, monkeypatch):
    cells = make(12, 9)
    (hub / "skcm").mkdir()
    cells.write_h5ad(hub / "skcm" / "a.h5ad")
    (hub / "skcm" / "b.h5ad.gz").write_bytes(gzip.compress((hub / "skcm" / "a.h5ad").read_bytes()))
    (hub / "metadata.csv").write_text("file_path\nskcm/b.h5ad.gz\n")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    source = H5ad(path="hf://datasets/owner/cells@main/skcm/*")
    ids, found = dense(source, 9)
    assert ids == [f"skcm/{name}/{row}" for name in ("a.h5ad", "b.h5ad.gz") for row in range(12)]
    np.testing.assert_array_equal(found, np.concatenate([counts(cells)] * 2))
    assert [shard.path.split("@")[1].split("/")[0] for shard in source.shards()] == [COMMIT] * 2
    identity = source.identity()
    assert identity["revision"] == COMMIT
    expected = hashlib.sha256((hub / "skcm" / "a.h5ad").read_bytes()).hexdigest()
    assert identity["files"]["skcm/a.h5ad"] == f"sha256:{expected}"
    listed = H5ad(path="hf://owner/cells", metadata_csv="metadata.csv")
    assert [shard.key for shard in listed.shards()] == ["skcm__b-000000"]
    assert dense(H5ad(path="hf://owner/cells/skcm/a.h5ad"), 9)[0] == list(cells.obs_names)
    assert not list(scratch.iterdir())


def test_a_hub_that_says_no_and_one_that_says_nothing_differ(hub):
    with pytest.raises(Refused, match="NO_DATASET"):
        H5ad(path="hf://owner/wrong").shards()
    with pytest.raises(Refused, match="NO_FILES"):
        H5ad(path="hf://owner/cells/nothing/*").shards()
    with pytest.raises(EnvironmentProblem, match="cannot be reached"):
        H5ad(path="hf://owner/offline").shards()
