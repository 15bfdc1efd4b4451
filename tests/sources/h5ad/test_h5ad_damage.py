"""Damaged files: named, refused, and never turned into rows."""

import errno
import gzip
import tempfile

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xfm.core.errors import EnvironmentProblem, Refused, ShardRefused
from xfm.sources.h5ad.files import inflate
from xfm.sources.h5ad.source import H5ad


@pytest.fixture
def good(cells, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    cells.write_h5ad(folder / "good.h5ad")
    return folder


def refusal(folder, name):
    """The code with which a damaged file refuses itself, beside a good one that is read."""
    source = H5ad(path=str(folder))
    shards = {shard.path.rsplit("/", 1)[1]: shard for shard in source.shards()}
    assert sum(batch.num_rows for batch in source.read(shards["good.h5ad"])) == 40
    assert shards[name].rows is None
    with pytest.raises(ShardRefused) as refused:
        next(source.read(shards[name]))
    assert name in source.identity()["files"]
    return refused.value.code


@pytest.mark.parametrize("percent", [10, 50, 99])
@pytest.mark.parametrize("packed", [False, True])
def test_a_truncated_file_is_quarantined(good, percent, packed):
    content = (good / "good.h5ad").read_bytes()
    content = gzip.compress(content) if packed else content
    name = "cut.h5ad.gz" if packed else "cut.h5ad"
    (good / name).write_bytes(content[: len(content) * percent // 100])
    assert refusal(good, name) == ("GZ_TRUNCATED" if packed else "H5_TRUNCATED")


def test_a_whole_gzip_of_a_truncated_file_is_quarantined(good):
    content = (good / "good.h5ad").read_bytes()
    (good / "cut.h5ad.gz").write_bytes(gzip.compress(content[: len(content) // 2]))
    assert refusal(good, "cut.h5ad.gz") == "H5_TRUNCATED"


def test_a_flipped_bit_in_gzip_yields_no_row(good):
    content = bytearray(gzip.compress((good / "good.h5ad").read_bytes(), 0))
    content[len(content) // 2] ^= 1
    (good / "flip.h5ad.gz").write_bytes(content)
    assert refusal(good, "flip.h5ad.gz") == "GZ_CORRUPT"


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("page.h5ad.gz", b"<html>rate limited</html>", "NOT_GZIP"),
        ("page.h5ad", b"<html>rate limited</html>" * 99, "H5_UNREADABLE"),
        ("empty.h5ad", b"", "EMPTY_FILE"),
        ("empty.h5ad.gz", b"", "EMPTY_FILE"),
        ("nothing.h5ad.gz", gzip.compress(b"", mtime=0), "EMPTY_FILE"),
        ("text.h5ad.gz", gzip.compress(b"no cells here", mtime=0), "H5_UNREADABLE"),
    ],
)
def test_what_is_no_h5ad_says_what_it_is(good, name, content, code):
    (good / name).write_bytes(content)
    assert refusal(good, name) == code


def edited(good, change):
    (good / "bad.h5ad").write_bytes((good / "good.h5ad").read_bytes())
    with h5py.File(good / "bad.h5ad", "r+") as file:
        change(file)


def set_indptr(file):
    file["X/indptr"][5] = file["X/indptr"][7]


def drop_value(file):
    kept = file["X/data"][:-1]
    del file["X/data"]
    file["X/data"] = kept


def no_genes(file):
    del file["var"][file["var"].attrs["_index"]]
    file["var"][file["var"].attrs["_index"]] = np.array([], dtype=h5py.string_dtype())
    file["X"].attrs["shape"] = [40, 0]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (set_indptr, "BAD_INDICES"),
        (drop_value, "BAD_INDICES"),
        (lambda file: file.__delitem__("obs"), "NOT_ANNDATA"),
        (lambda file: file.__delitem__("X"), "NOT_ANNDATA"),
        (lambda file: file["X"].attrs.__setitem__("shape", [40, 31]), "NOT_ANNDATA"),
        (lambda file: file["var"].attrs.__delitem__("_index"), "H5_UNREADABLE"),
        (no_genes, "NO_GENES"),
    ],
)
def test_contradictions_inside_a_file_are_found_at_listing(good, change, code):
    edited(good, change)
    assert refusal(good, "bad.h5ad") == code


def test_a_damaged_chunk_of_a_compressed_matrix_is_found_when_read(good, make):
    make(3000, 40).write_h5ad(good / "bad.h5ad", compression="gzip")
    with h5py.File(good / "bad.h5ad", "r") as file:
        chunks = file["X/data"].id
        where = chunks.get_chunk_info(chunks.get_num_chunks() // 2 + 1)
    content = bytearray((good / "bad.h5ad").read_bytes())
    middle = where.byte_offset + where.size // 2
    content[middle : middle + 8] = b"damaged!"
    (good / "bad.h5ad").write_bytes(content)
    source = H5ad(path=str(good / "bad.h5ad"), layer="X", values="counts")
    with pytest.raises(ShardRefused, match="H5_UNREADABLE"):
        list(source.read(source.shards()[0]))


@pytest.mark.parametrize("index", [-1, 30])
@pytest.mark.parametrize("packed", [False, True])
def test_an_index_out_of_range_is_refused(good, index, packed):
    edited(good, lambda file: file["X/indices"].__setitem__(100, index))
    path = good / "bad.h5ad"
    if packed:
        path = good / "bad.h5ad.gz"
        path.write_bytes(gzip.compress((good / "bad.h5ad").read_bytes()))
    source = H5ad(path=str(path))
    with pytest.raises(ShardRefused, match="BAD_INDICES"):
        next(source.read(source.shards()[0]))


def test_a_folder_of_damaged_files_only_is_refused(good):
    (good / "good.h5ad").write_bytes(b"")
    with pytest.raises(Refused, match=r"none of 1 files.*EMPTY_FILE"):
        H5ad(path=str(good)).shards()
    with pytest.raises(Refused, match="NO_FILES"):
        H5ad(path=str(good / "*.h5ad.gz")).shards()


def test_temporary_copies_are_gone_after_success_and_failure(good, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    content = gzip.compress((good / "good.h5ad").read_bytes())
    for name, part in (("a.h5ad.gz", content), ("b.h5ad.gz", content[:-40])):
        (good / name).write_bytes(part)
    source = H5ad(path=str(good / "*.gz"))
    whole, cut = source.shards()
    batches = source.read(whole)
    next(batches)
    assert list(scratch.iterdir())
    batches.close()
    with pytest.raises(ShardRefused):
        list(source.read(cut))
    assert not list(scratch.iterdir())


def test_a_full_disk_is_a_problem_of_the_machine(good, tmp_path, monkeypatch):
    (good / "a.h5ad.gz").write_bytes(gzip.compress(b"x" * 100))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gzip, "open", full)
    with pytest.raises(EnvironmentProblem, match="NO_DISK_SPACE"):
        inflate(good / "a.h5ad.gz", tmp_path, "a.h5ad.gz")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_in_gzip_never_changes_what_comes_out(good, tmp_path, place, bit):
    content = bytearray(gzip.compress(b"cells" * 500, 6, mtime=0))
    position = 10 + int(place * (len(content) - 10))  # the ten bytes of the header hold no data
    content[position] ^= 1 << bit
    path = tmp_path / "f.gz"
    path.write_bytes(content)
    try:
        inflated = inflate(path, tmp_path, "f.gz")
    except ShardRefused:
        return
    assert inflated.read_bytes() == b"cells" * 500  # some bits are padding
