"""Data sets that the library `datasets` saved: read where they lie, one file a unit, pictures as they are."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value

from tests.image_examples import NAMES, picture
from xfm.core.errors import Refused, ShardRefused
from xfm.core.schema import IMAGE, REFUSED, ROW_ID, TEXT
from xfm.sources.files.images import HubImages
from xfm.sources.files.text import HubText

TEXTS = [f"sentence {i}" for i in range(10)]


@pytest.fixture(autouse=True)
def _quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def rows_of(source):
    return [row for shard in source.shards() for batch in source.read(shard) for row in batch.to_pylist()]


def refusals(source):
    return {row[ROW_ID]: row[REFUSED].partition(":")[0] for row in rows_of(source) if row[REFUSED]}


def saved_texts(folder: Path) -> Path:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    train = Dataset.from_dict({"text": TEXTS, "label": [i % 2 for i in range(10)]}, features=features)
    DatasetDict({"train": train, "test": train.select([9, 0])}).save_to_disk(folder, num_shards={"train": 3, "test": 1})
    return folder


@pytest.mark.parametrize("shard_rows", [1, 3, 100])
def test_saved_sentences_keep_their_order_splits_and_class_names(tmp_path, shard_rows):
    source = HubText(path=str(saved_texts(tmp_path / "reviews")), obs=("label", "split"), shard_rows=shard_rows)
    rows = rows_of(source)
    assert [row[TEXT] for row in rows] == [TEXTS[9], TEXTS[0], *TEXTS]  # test comes before train
    assert [row["label"] for row in rows] == ["pos", "neg", *["neg", "pos"] * 5]
    assert [row["split"] for row in rows] == ["test"] * 2 + ["train"] * 10
    assert rows[2][ROW_ID] == "train/data-00000-of-00003.arrow/0"
    assert len(rows_of(HubText(path=source.path, split="train"))) == 10
    dealt = rows_of(HubText(path=source.path, shuffle=True, shard_rows=shard_rows))
    assert sorted(row[TEXT] for row in dealt) == sorted(row[TEXT] for row in rows)


def test_saved_pictures_stay_encoded_and_rows_without_one_say_so(tmp_path):
    pictures = [picture(NAMES[i % 3], kind=kind) for i, kind in enumerate(("png", "jpeg", "webp"))]
    features = Features({"image": Image(), "label": ClassLabel(names=list(NAMES))})
    values = [*({"bytes": data, "path": None} for data in pictures), {"bytes": b"no picture", "path": "x.png"}, None]
    Dataset.from_dict({"image": values, "label": [0, 1, 2, 0, 1]}, features=features).save_to_disk(tmp_path / "set")
    source = HubImages(path=str(tmp_path / "set"), obs=("label",), shard_rows=2)
    assert [row[IMAGE] for row in rows_of(source)] == [*pictures, b"no picture", None]
    assert [row["label"] for row in rows_of(source)] == ["red", "green", "blue", "red", "green"]
    assert refusals(source) == {"data-00000-of-00001.arrow/4": "NO_IMAGE"}


def test_what_map_left_in_a_saved_folder_is_not_read_again(tmp_path):
    folder = saved_texts(tmp_path / "reviews")
    datasets.load_from_disk(str(folder))["train"].map(lambda row: {"text": row["text"].upper()})
    assert list((folder / "train").glob("cache-*.arrow"))
    assert len(rows_of(HubText(path=str(folder)))) == 12


@pytest.mark.parametrize("cut", [0, 10, 200, -8, "middle"])
def test_a_file_that_was_cut_off_is_one_refused_shard(tmp_path, cut):
    folder = saved_texts(tmp_path / "reviews")
    broken = folder / "train" / "data-00001-of-00003.arrow"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2 if cut == "middle" else cut])
    source = HubText(path=str(folder))
    bad = [shard for shard in source.shards() if shard.rows is None]
    assert [Path(shard.path).name for shard in bad] == ["data-00001-of-00003.arrow"]
    with pytest.raises(ShardRefused, match=r"DAMAGED_FILE: train/data-00001"):
        list(source.read(bad[0]))
    good = [shard for shard in source.shards() if shard.rows is not None]
    assert sum(batch.num_rows for shard in good for batch in source.read(shard)) == 9  # 12 without 3


def test_bytes_that_are_no_utf8_and_files_of_another_kind_are_refused(tmp_path):
    folder = saved_texts(tmp_path / "reviews")
    one = folder / "test" / "data-00000-of-00001.arrow"
    one.write_bytes(one.read_bytes().replace(b"sentence 9", b"sentenc\xe9 9"))
    source = HubText(path=str(one))
    with pytest.raises(ShardRefused, match=r"DAMAGED_FILE.*UTF8"):
        list(source.read(source.shards()[0]))
    one.write_bytes(b"ARROW1\0\0" + bytes(64))
    with pytest.raises(Refused, match=r"DAMAGED_FILE.*no stream of Arrow"):
        HubText(path=str(one)).shards()


def test_reading_leaves_nothing_behind_and_loads_no_torch(tmp_path):
    folder, home = saved_texts(tmp_path / "reviews"), tmp_path / "home"
    home.mkdir()
    program = (
        "import sys; from xfm.sources.files.text import HubText; assert 'datasets' not in sys.modules\n"
        f"source = HubText(path={str(folder)!r}, shard_rows=4); shards = source.shards()\n"
        "print(sum(batch.num_rows for shard in shards for batch in source.read(shard)))\n"
        "assert 'datasets' in sys.modules and 'torch' not in sys.modules"
    )
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))}
    before = sorted(folder.rglob("*"))
    environment = keep | {"HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("12", 0), done.stderr
    assert not list(home.rglob("*"))
    assert sorted(folder.rglob("*")) == before


def test_a_saved_set_next_to_files_of_another_format_is_refused(tmp_path, caplog):
    folder = saved_texts(tmp_path / "reviews")
    (folder / "train.csv").write_text("text,label\na,1\n")
    with caplog.at_level(logging.WARNING), pytest.raises(Refused, match=r"MIXED_FORMATS.*\.arrow and \.csv"):
        HubText(path=str(folder)).shards()
