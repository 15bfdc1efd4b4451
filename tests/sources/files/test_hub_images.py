"""Pictures from folders, Parquet and webdataset archives: the same bytes and labels, bad rows kept and named."""

import io
import json
import logging
import os
import tarfile

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled
from PIL import Image

from tests.image_examples import COLOURS, NAMES, hub_parquet, picture, tar, write_pictures
from xfm.core.errors import EnvironmentProblem, Refused, ShardRefused
from xfm.core.schema import IMAGE, REFUSED, ROW_ID, SHARD
from xfm.sources.files import found, images
from xfm.sources.files.images import HubImages
from xfm.tokenizers.image import decode

PICTURES = [picture(NAMES[i % 3], (8 + i, 7), ("png", "jpeg", "webp")[i // 3]) for i in range(9)]
LABELS = [i % 3 for i in range(9)]


def rows_of(source):
    return [row for shard in source.shards() for batch in source.read(shard) for row in batch.to_pylist()]


def refusals(source):
    return {row[ROW_ID]: row[REFUSED].partition(":")[0] for row in rows_of(source) if row[REFUSED]}


def colour_of(row):
    """The nearest colour of the picture's middle: what the encoded bytes really show."""
    with Image.open(io.BytesIO(row[IMAGE])) as image:
        found = image.convert("RGB").getpixel((image.width // 2, image.height // 2))
    return min(COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(COLOURS[name], found, strict=True)))


def in_layout(kind, folder):
    """The nine pictures in one of the layouts."""
    if kind == "hub":
        return hub_parquet(folder / "train.parquet", PICTURES, LABELS)
    if kind == "binary":
        table = pa.table({"img": pa.array(PICTURES, pa.binary()), "fine_label": [NAMES[n] for n in LABELS]})
        pq.write_table(table, folder / "train-00000-of-00001.parquet", row_group_size=5)
        return folder
    if kind == "tar":
        (folder / "classnames.txt").write_text("\n".join(NAMES) + "\n")
        members = [
            (f"s{i}.{end}", content)
            for i, data in enumerate(PICTURES)
            for end, content in (("cls", f"{LABELS[i]}\n".encode()), (("png", "jpg", "webp")[i // 3], data))
        ]
        tar(folder / "train" / "0.tar", members)
        return folder
    for i, data in enumerate(PICTURES):
        path = folder / "train" / NAMES[LABELS[i]] / f"{i}.{('png', 'JPEG', 'webp')[i // 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / "train" / "notes.txt").write_text("no picture")
    return folder


@pytest.mark.parametrize("kind", ["hub", "binary", "tar", "folder"])
@pytest.mark.parametrize("shard_rows", [1, 4, 100])
def test_every_layout_gives_the_same_bytes_under_readable_labels(tmp_path, kind, shard_rows):
    source = HubImages(path=str(in_layout(kind, tmp_path)), obs=("label", "split"), shard_rows=shard_rows)
    rows = rows_of(source)
    assert sorted(row[IMAGE] for row in rows) == sorted(PICTURES)
    assert [colour_of(row) for row in rows] == [row["label"] for row in rows]
    assert {row["split"] for row in rows} == {"train"}
    assert len({row[ROW_ID] for row in rows}) == 9
    assert not refusals(source)
    assert source.schema.field(IMAGE).type == pa.large_binary()
    assert len(source.shards()) == -(-9 // shard_rows)


@pytest.mark.parametrize("kind", ["hub", "binary", "tar", "folder"])
def test_shuffling_deals_every_row_once_whatever_the_shards(tmp_path, kind):
    path = str(in_layout(kind, tmp_path))
    plain = {row[ROW_ID]: (row[IMAGE], row["label"]) for row in rows_of(HubImages(path=path, obs=("label",)))}
    dealt = rows_of(HubImages(path=path, obs=("label",), shuffle=True, shard_rows=4))
    assert {row[ROW_ID]: (row[IMAGE], row["label"]) for row in dealt} == plain
    assert len(dealt) == 9
    order = [row[ROW_ID] for row in dealt]
    assert order != list(plain)
    assert order == [row[ROW_ID] for row in rows_of(HubImages(path=path, shuffle=True, shard_rows=7))]


def test_row_ids_say_where_a_picture_lies(tmp_path):
    folder = write_pictures(tmp_path / "f", 2)
    ids = [row[ROW_ID] for row in rows_of(HubImages(path=str(folder), split="train"))]
    assert ids == [f"train/{colour}/{i}.png" for colour in ("blue", "green", "red") for i in (0, 1)]
    ids = [row[ROW_ID] for row in rows_of(HubImages(path=str(folder / "train"), obs=("label", "split")))]
    assert ids[0] == "blue/0.png"
    path = hub_parquet(tmp_path / "a.parquet", PICTURES[:2], [0, 1])
    assert [row[ROW_ID] for row in rows_of(HubImages(path=str(path)))] == ["a.parquet/0", "a.parquet/1"]


def test_folders_without_splits_nested_and_mixed(tmp_path):
    for name in ("n1/images/a.png", "n2/b.PNG", ".cache/c.png", "d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture("red"))
    rows = rows_of(HubImages(path=str(tmp_path), obs=("label",)))
    assert {row[ROW_ID]: row["label"] for row in rows} == {"d.png": None, "n1/images/a.png": "n1", "n2/b.PNG": "n2"}
    with pytest.raises(Refused, match=r"NO_COLUMN.*no column 'split'"):
        HubImages(path=str(tmp_path), obs=("split",)).shards()
    (tmp_path / "val" / "n1").mkdir(parents=True)
    (tmp_path / "val" / "n1" / "e.png").write_bytes(picture("red"))
    rows = rows_of(HubImages(path=str(tmp_path)))  # beside a split every folder is a part of its own
    assert {row[ROW_ID] for row in rows} == {"n1/images/a.png", "n2/b.PNG", "val/n1/e.png"}
    assert [row[ROW_ID] for row in rows_of(HubImages(path=str(tmp_path), split="validation"))] == ["val/n1/e.png"]


def test_wordnet_ids_become_names_by_table_from_every_layout(tmp_path):
    ids = ("n02012849", "n03126707", "n99999999")
    for name in ids:
        (tmp_path / "f" / name).mkdir(parents=True)
        (tmp_path / "f" / name / "0.png").write_bytes(picture("red"))
    source = HubImages(path=str(tmp_path / "f"), obs=("label",), class_names="imagenet")
    assert [row["label"] for row in rows_of(source)] == ["crane bird", "construction crane", None]
    assert refusals(source) == {"n99999999/0.png": "BAD_LABEL"}
    pq.write_table(pa.table({"image": PICTURES[:3], "label": ["134", "517", "1000"]}), tmp_path / "a.parquet")
    source = HubImages(path=str(tmp_path / "a.parquet"), obs=("label",), class_names="imagenet")
    assert [row["label"] for row in rows_of(source)] == ["crane bird", "construction crane", None]
    assert refusals(source) == {"a.parquet/2": "BAD_LABEL"}
    with pytest.raises(ValueError, match=r"'imagenet1k'\. Did you mean 'imagenet'"):
        HubImages(path="x", class_names="imagenet1k")


def test_classes_of_one_name_are_warned_about_with_their_keys(tmp_path, caplog):
    path = hub_parquet(tmp_path / "a.parquet", PICTURES[:3], [0, 1, 2])
    with caplog.at_level(logging.WARNING):
        HubImages(path=str(path), label_names=("crane", "maillot", "crane")).shards()
    assert "2 classes are called 'crane'" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        HubImages(path=str(path)).shards()
    assert not caplog.text


def test_rows_without_a_picture_or_with_a_wrong_label_stay_and_say_why(tmp_path):
    pictures = [PICTURES[0], None, b"", PICTURES[3], b"no picture at all", PICTURES[5]]
    path = hub_parquet(tmp_path / "a.parquet", pictures, [0, 1, 2, 3, 0, -1])
    source = HubImages(path=str(path), obs=("label",), shard_rows=4)
    assert refusals(source) == {"a.parquet/1": "NO_IMAGE", "a.parquet/2": "EMPTY_IMAGE", "a.parquet/3": "BAD_LABEL"}
    assert [row["label"] for row in rows_of(source)] == ["red", "green", "blue", None, "red", None]
    assert rows_of(source)[4][IMAGE] == b"no picture at all"  # whoever decodes it says so


def test_a_struct_that_is_missing_altogether_is_no_picture(tmp_path):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    values = [None, {"bytes": None, "path": "/elsewhere.png"}, {"bytes": PICTURES[0], "path": None}]
    pq.write_table(pa.table({"image": pa.array(values, kind)}), tmp_path / "a.parquet")
    assert refusals(HubImages(path=str(tmp_path))) == {"a.parquet/0": "NO_IMAGE", "a.parquet/1": "NO_IMAGE"}


def test_columns_are_found_and_wrong_names_are_answered_with_those_there_are(tmp_path):
    table = pa.table({"photo_a": PICTURES, "photo_b": PICTURES, "Cls": LABELS, "txt": ["a", "b", "c"] * 3})
    pq.write_table(table, tmp_path / "a.parquet")
    path = str(tmp_path)
    with pytest.raises(Refused, match=r"NO_COLUMN.*--source\.image_column.*photo_a, photo_b.*Cls, txt"):
        HubImages(path=path).shards()
    with pytest.raises(Refused, match=r"NO_COLUMN.*'photo_c'\. Did you mean 'photo_"):
        HubImages(path=path, image_column="photo_c").shards()
    with pytest.raises(Refused, match=r"NOT_IMAGE.*'Cls' is int64; columns of encoded pictures: photo_a, photo_b"):
        HubImages(path=path, image_column="Cls").shards()
    row = rows_of(HubImages(path=path, image_column="photo_b", obs=("label", "caption", "txt", "Cls")))[1]
    assert (row["label"], row["caption"], row["txt"], row["Cls"]) == ("1", "b", "b", "1")
    with pytest.raises(Refused, match=r"NO_COLUMN.*no column 'captoin'.*There are: photo_a, photo_b, Cls, txt"):
        HubImages(path=path, image_column="photo_a", obs=("captoin",)).shards()
    pq.write_table(table.select(["photo_a"]), tmp_path / "a.parquet")
    with pytest.raises(Refused, match=r"NO_COLUMN.*no column 'label'"):
        HubImages(path=path, obs=("label",)).shards()


def test_an_archive_gives_captions_json_fields_and_rows_without_a_picture(tmp_path):
    described = json.dumps({"label": 2, "caption": "a blue one", "score": 0.5}).encode()
    members = [
        ("./d/a.b.png", b"its extension is b.png"), ("d/0.PNG", PICTURES[2]), ("d/0.json", described),
        ("d/1.txt", b"x"),
        ("d/2.jpg", PICTURES[4]), ("d/2.json", b"{"), ("d/3.jpg", PICTURES[5]), ("d/3.json", b"[1]"), ("README", b"r"),
    ]  # fmt: skip
    source = HubImages(path=str(tar(tmp_path / "a.tar", members)), obs=("label", "caption", "score"))
    rows = rows_of(source)
    assert [row[IMAGE] for row in rows] == [None, PICTURES[2], None, PICTURES[4], PICTURES[5]]
    assert (rows[1]["label"], rows[1]["caption"], rows[1]["score"]) == ("2", "a blue one", "0.5")
    assert refusals(source) == {
        "a.tar/0": "NO_IMAGE", "a.tar/2": "NO_IMAGE", "a.tar/3": "BAD_ROW", "a.tar/4": "BAD_ROW",
    }  # fmt: skip
    assert "d/2.json is no JSON" in rows[3][REFUSED]


def test_a_member_that_states_more_than_it_holds_is_refused_before_it_takes_the_memory(tmp_path):
    """GNU's old sparse format: a header of 512 bytes whose real size is 8 GiB - 1."""
    member = tarfile.TarInfo("0.jpg")
    member.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"77777777777\0"
    header[148:156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 8 * 32)
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(1024))
    with pytest.raises(Refused, match=r"DAMAGED_FILE.*0\.jpg is sparse"):
        HubImages(path=str(tmp_path / "a.tar")).shards()


def test_a_member_that_comes_twice_starts_another_row(tmp_path):
    members = [("0.jpg", PICTURES[3]), ("0.cls", b"0"), ("0.jpg", PICTURES[4]), ("0.cls", b"1")]
    rows = rows_of(HubImages(path=str(tar(tmp_path / "a.tar", members)), obs=("label",), label_names=NAMES))
    assert [(row[IMAGE], row["label"]) for row in rows] == [(PICTURES[3], "red"), (PICTURES[4], "green")]


def test_a_caption_that_is_no_utf8_is_refused(tmp_path):
    caption = pa.array([b"caf\xe9"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"image": PICTURES[:1], "caption": caption}), tmp_path / "a.parquet")
    source = HubImages(path=str(tmp_path), obs=("caption",))
    with pytest.raises(ShardRefused, match=r"DAMAGED_FILE.*UTF8"):
        list(source.read(source.shards()[0]))


def test_folders_named_by_numbers_keep_their_names(tmp_path):
    for name in ("1", "2", "10"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(PICTURES[0])
    assert [row["label"] for row in rows_of(HubImages(path=str(tmp_path), obs=("label",)))] == ["1", "10", "2"]


def test_names_of_classes_stand_beside_or_above_the_archives(tmp_path):
    archive = tar(tmp_path / "test" / "0.tar", [("0.jpg", PICTURES[3]), ("0.cls", b"1"), ("1.jpg", PICTURES[3])])
    (tmp_path / "classnames.txt").write_text("fire truck\nice_cream\n")
    source = HubImages(path=str(archive), obs=("label",))
    assert [row["label"] for row in rows_of(source)] == ["ice cream", None]
    before = source.identity()
    (tmp_path / "classnames.txt").write_text("fire truck\nsorbet\n")
    assert source.identity() != before
    given = HubImages(path=str(archive), obs=("label",), label_names=("a", "b_c"))
    assert [row["label"] for row in rows_of(given)] == ["b_c", None]


@pytest.mark.parametrize("cut", [0.3, 0.999, 512])
def test_an_archive_that_was_cut_off_is_refused_and_the_others_are_read(tmp_path, cut):
    whole = tar(tmp_path / "train-1.tar", [(f"{i}.png", data) for i, data in enumerate(PICTURES[:3])])
    content = whole.read_bytes().rstrip(b"\0")
    length = -(-len(content) // 512) * 512  # all members, and no end of the archive
    (tmp_path / "train-0.tar").write_bytes(whole.read_bytes()[: length if cut == 512 else int(length * cut)])
    source = HubImages(path=str(tmp_path))
    shards = {shard.path.rpartition("/")[2]: shard for shard in source.shards()}
    assert sum(batch.num_rows for batch in source.read(shards["train-1.tar"])) == 3
    assert shards["train-0.tar"].rows is None
    with pytest.raises(ShardRefused, match=r"DAMAGED_FILE: train-0\.tar"):
        list(source.read(shards["train-0.tar"]))


def test_a_damaged_parquet_file_costs_that_file_only(tmp_path):
    good = hub_parquet(tmp_path / "train.parquet", PICTURES, LABELS).read_bytes()
    (tmp_path / "test.parquet").write_bytes(good[: len(good) // 2])
    source = HubImages(path=str(tmp_path), shuffle=True)
    shards = source.shards()
    assert [shard.rows for shard in shards] == [9, None]
    with pytest.raises(ShardRefused, match=r"DAMAGED_FILE: test\.parquet"):
        list(source.read(shards[1]))
    broken = bytearray(good)
    broken[10 : len(good) // 2] = b"\xff" * (len(good) // 2 - 10)
    (tmp_path / "train.parquet").write_bytes(broken)  # its footer is whole
    (tmp_path / "test.parquet").unlink()
    source = HubImages(path=str(tmp_path))
    with pytest.raises(ShardRefused, match=r"DAMAGED_FILE: train\.parquet"):
        list(source.read(source.shards()[0]))


def test_what_is_no_data_set_of_pictures_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("nothing")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "*.tar"):
        with pytest.raises(Refused, match=r"NO_FILES: no \.parquet, \.tar"):
            HubImages(path=str(path)).shards()
    tar(tmp_path / "a.tar", [("0.wav", b"sound"), ("0.cls", b"1")])
    with pytest.raises(Refused, match=r"NO_COLUMN.*no member is a picture\. Extensions: wav, cls"):
        HubImages(path=str(tmp_path)).shards()
    (tmp_path / "a.tar").write_bytes(b"not a tar" * 200)
    with pytest.raises(Refused, match=r"DAMAGED_FILE.*a\.tar"):
        HubImages(path=str(tmp_path)).shards()
    hub_parquet(tmp_path / "b.parquet", PICTURES, LABELS)
    with pytest.raises(Refused, match=r"MIXED_FORMATS.*\.parquet and \.tar"):
        HubImages(path=str(tmp_path)).shards()


def test_a_picture_that_vanished_or_appeared_since_listing_is_noticed(tmp_path):
    folder = write_pictures(tmp_path, 2)
    source = HubImages(path=str(folder), split="train")
    shard, before = source.shards()[0], source.identity()
    (folder / "train" / "red" / "0.png").unlink()
    os.utime(folder / "train" / "red", ns=(1, 1))  # a file system may be too coarse to show the change
    with pytest.raises(ShardRefused, match=r"ROWS_CHANGED.*6 promised, 5 found"):
        list(source.read(shard))
    assert source.identity() != before
    assert source.shards()[0].rows == 5


def test_batches_are_bounded_by_bytes_and_by_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "BATCH_BYTES", 1000)
    monkeypatch.setattr(images, "BATCH_ROWS", 3)
    sizes = [400, 500, 200, 1, 1, 1, 1, 5000, None, 999, 2]
    blobs = [None if size is None else bytes(size) for size in sizes]
    source = HubImages(path=str(hub_parquet(tmp_path / "a.parquet", blobs, [0] * 11, group=2)))
    batches = [
        [None if row is None else len(row) for row in batch[IMAGE].to_pylist()]
        for shard in source.shards()
        for batch in source.read(shard)
    ]
    assert batches == [[400, 500], [200, 1, 1], [1, 1], [5000], [None, 999], [2]]


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub client whose cache holds one data set; keeps what was asked of it."""
    asked = []

    def snapshot_download(repo, **options):
        asked.append((options["revision"], tuple(options["allow_patterns"])))
        return str(tmp_path / "snapshots" / COMMIT)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    found.snapshot.cache_clear()
    (tmp_path / "snapshots" / COMMIT).mkdir(parents=True)
    yield tmp_path / "snapshots" / COMMIT, asked
    found.snapshot.cache_clear()


def test_archives_of_the_hub_come_with_their_class_names(hub):
    folder, asked = hub
    tar(folder / "test" / "0.tar", [("0.webp", PICTURES[7]), ("0.cls", b"1")])
    (folder / "classnames.txt").write_text("red\ngreen\nblue\n")
    source = HubImages(path="hf://datasets/clip-benchmark/wds_x", obs=("label", "split"))
    assert [row | {SHARD: ""} for row in rows_of(source)] == [
        {ROW_ID: "test/0.tar/0", SHARD: "", REFUSED: None, IMAGE: PICTURES[7], "label": "green", "split": "test"}
    ]
    assert source.identity()["revision"] == COMMIT
    assert asked == [
        (None, ("*.parquet", "*.tar", "classnames.txt")), (COMMIT, ("test/0.tar", "classnames.txt")),
    ]  # fmt: skip


@pytest.mark.parametrize("below", ["", "/data"])
def test_folders_of_classes_of_the_hub_are_found_again_on_another_machine(hub, below):
    folder, asked = hub
    write_pictures(folder / below.strip("/"), 2)
    source = HubImages(path=f"hf://owner/shapes{below}", obs=("label", "split"), split="test")
    shards = source.shards()
    assert [shard.path for shard in shards] == [f"hf://datasets/owner/shapes@{COMMIT}{below}/test"]
    rows = rows_of(source)
    assert [row[ROW_ID] for row in rows] == [f"test/{colour}/0.png" for colour in ("blue", "green", "red")]
    assert [colour_of(row) for row in rows] == [row["label"] for row in rows]
    assert (f"{below}/test/*.png".strip("/")) in asked[-1][1]
    assert asked[-1][0] == COMMIT
    whole = HubImages(path=f"hf://owner/shapes{below}/train", obs=("label",))
    assert {row[ROW_ID] for row in rows_of(whole)} == {f"{c}/{i}.png" for c in NAMES for i in (0, 1)}


def test_no_network_and_no_copy_is_a_problem_of_the_environment(hub, monkeypatch):
    def snapshot_download(repo, **options):
        raise OfflineModeIsEnabled("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(EnvironmentProblem, match="hf download --repo-type dataset owner/shapes"):
        HubImages(path="hf://owner/shapes").shards()


def laid(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture("red") if name.endswith(("png", "jfif", "avif")) else b"no picture")
    return str(folder)


def test_a_class_may_be_called_train_beside_others(tmp_path):
    path = laid(tmp_path, "bus/a.png", "car/b.png", "train/c.png")
    assert {row["label"] for row in rows_of(HubImages(path=path, obs=("label",)))} == {"bus", "car", "train"}


@pytest.mark.parametrize(
    ("names", "instead"),
    [
        (("seg_train/seg_train/sea/a.png", "seg_test/seg_test/sea/b.png"), "seg_test"),
        (("training_set/cats/a.png", "test_set/cats/b.png"), "test_set"),
        (("training_set/a.png", "test_set/b.png"), "test_set"),
        (("train/train/cats/a.png", "test/test/cats/b.png"), "train"),
    ],
)
def test_parts_of_a_data_set_do_not_become_its_classes(tmp_path, names, instead):
    with pytest.raises(Refused, match=f"CLASS_FOLDERS.*hardly the classes.*e.g. .*{instead}"):
        HubImages(path=laid(tmp_path, *names), obs=("label",)).shards()


def test_all_that_pillow_reads_is_read_and_what_is_left_out_is_named_by_class(tmp_path, caplog):
    avif = io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(avif, "AVIF")
    path = laid(tmp_path, "cat/a.jfif", "cat/b.AVIF", "cat/c.heic", "dog/d.heic", "dog/e.heic", "fox/f.png")
    (tmp_path / "cat" / "b.AVIF").write_bytes(avif.getvalue())
    rows = rows_of(HubImages(path=path, obs=("label",)))
    assert {row[ROW_ID] for row in rows} == {"cat/a.jfif", "cat/b.AVIF", "fox/f.png"}
    assert decode(avif.getvalue()).size == (9, 9)
    said = [record.getMessage() for record in caplog.records]
    assert any("cat: left out, as no picture: 1 .heic" in line for line in said)
    assert any("dog: no picture that can be read, only 2 .heic" in line for line in said)
