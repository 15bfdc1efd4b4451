"""Why our readers of JSON lines, CSV, folders of classes, webdataset archives and Parquet stay.

Each test shows what the library `datasets` does to a file that the sources' contract covers: one bad row costs one row,
values stay as they stand in the file, a file that was cut off is noticed, listing loads no torch. A test that fails
after an upgrade means that the library has changed, and that our reader of that format may give way.
"""

import subprocess
import sys

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets.table import CastError

from tests.image_examples import picture, tar

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _no_torch_and_own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "TORCH_AVAILABLE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
    yield
    datasets.utils.logging.set_verbosity_warning()


def rows_of(module, path, **options):
    """All rows of one file, as the library streams them."""
    return list(datasets.load_dataset(module, data_files=[str(path)], split="train", streaming=True, **options))


def test_one_bad_line_of_json_costs_the_whole_file(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n{"text": \n{"text": "two"}\n')
    with pytest.raises(ValueError, match="Expected object or value"):
        rows_of("json", path)


def test_json_text_that_looks_like_a_date_becomes_a_time(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "2020-01-01"}\n{"text": "2021-05-05"}\n')
    assert not isinstance(rows_of("json", path)[0]["text"], str)


def test_the_first_piece_of_a_json_file_decides_about_the_columns_of_all(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "early", "k": 1}\n' * 1000 + '{"text": "late", "k": "007"}\n{"text": "late", "j": 1}\n')
    with pytest.raises(CastError, match="column names don't match"):
        rows_of("json", path, chunksize=1000)
    path.write_text('{"text": "early", "k": 1}\n' * 1000 + '{"text": "late", "k": "007"}\n' * 100)
    assert rows_of("json", path, chunksize=1000)[-1]["k"] == 7


def test_csv_values_are_changed(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\nNA,001\nfine,010\n")
    assert rows_of("csv", path) == [{"text": None, "label": 1}, {"text": "fine", "label": 10}]


def test_a_csv_row_that_is_too_long_costs_the_file_and_one_too_short_is_filled_without_a_word(tmp_path):
    text = datasets.Features({"text": datasets.Value("string"), "label": datasets.Value("string")})
    path = tmp_path / "a.csv"
    path.write_text("text,label\none,1\ntwo,0,9\n")
    with pytest.raises(ValueError, match="Expected 2 fields in line 3, saw 3"):
        rows_of("csv", path, features=text, keep_default_na=False)
    path.write_text("text,label\none,1\ntwo\nthree,\n")
    rows = rows_of("csv", path, features=text, keep_default_na=False)
    assert [row["label"] for row in rows] == ["1", "", ""]  # the second has no label at all
    path.write_text("text,text\na,b\n")
    assert list(rows_of("csv", path)[0]) == ["text", "text.1"]
    path.write_bytes(b"text,label\na\rb,1\n")
    assert len(rows_of("csv", path)) == 2  # one row in two


PICTURE = picture("red")


def test_an_archive_that_was_cut_off_between_two_members_is_read_without_a_word(tmp_path):
    path = tar(tmp_path / "a.tar", [(f"{i}.png", PICTURE) for i in range(8)])
    assert len(rows_of("webdataset", path)) == 8
    path.write_bytes(path.read_bytes()[: 5 * 1024])  # a header of 512 bytes, and a picture in one block of 512
    assert len(rows_of("webdataset", path)) == 5


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ([("0.png", PICTURE), ("0.txt", b"a"), ("1.txt", b"b")], "don't share the same prefix or the same types"),
        ([("0.png", PICTURE), ("1.jpg", picture("red", kind="jpeg"))], "don't share the same prefix or the same types"),
        ([("0.png", PICTURE), ("0.json", b"{")], "Expecting property name"),
        ([("0.png", PICTURE), ("0.cls", b"red")], "invalid literal for int"),
        ([("0.png", PICTURE), ("0.png", PICTURE)], "Duplicate field"),
    ],
    ids=["no picture", "two kinds of pictures", "no JSON", "a class in words", "a member twice"],
)
def test_one_odd_row_of_an_archive_costs_the_whole_archive(tmp_path, members, error):
    with pytest.raises(ValueError, match=error):
        rows_of("webdataset", tar(tmp_path / "a.tar", members))


def test_folders_of_classes_lose_their_labels(tmp_path):
    def columns():
        found = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "set"), streaming=True)
        return list(found["train"].features)

    for name in ("n1/images/a.png", "n2/images/b.png"):  # as Tiny ImageNet lies on disk
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        (tmp_path / "set" / name).write_bytes(PICTURE)
    assert columns() == ["image"]  # the nearest folders have one name
    (tmp_path / "set" / "n3").mkdir()
    (tmp_path / "set" / "n3" / "c.png").write_bytes(PICTURE)
    assert columns() == ["image"]  # and now they lie at two depths


def test_one_column_of_a_parquet_file_that_the_library_does_not_know_costs_the_file(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a"], "other": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))}), path)
    with pytest.raises(ValueError, match="does not have a datasets dtype equivalent"):
        rows_of("parquet", path, columns=["text"])


def test_streaming_writes_a_lock_into_the_cache_for_every_file(tmp_path):
    for name in "ab":
        pq.write_table(pa.table({"text": [name]}), tmp_path / f"{name}.parquet")
        rows_of("parquet", tmp_path / f"{name}.parquet")
    assert len(list((tmp_path / "cache").rglob("*.lock"))) == 2


def test_listing_a_stream_imports_torch(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    program = (
        "import sys, datasets; assert 'torch' not in sys.modules\n"
        f"datasets.load_dataset('parquet', data_files={str(tmp_path / 'a.parquet')!r}, streaming=True, "
        f"cache_dir={str(tmp_path)!r})\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
