"""Sentences from files: alike in every format, rows that cannot be read kept and named, splits, labels and the Hub."""

import csv
import hashlib
import json
from pathlib import Path

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

from tests.text_examples import class_label
from xfm.core.errors import EnvironmentProblem, Refused, ShardRefused
from xfm.core.schema import REFUSED, ROW_ID, SHARD, TEXT
from xfm.sources.files import found
from xfm.sources.files.columns import read_labels
from xfm.sources.files.found import split_of
from xfm.sources.files.rows import deal
from xfm.sources.files.text import HubText

# NEL, LINE SEPARATOR and CR, at which str.splitlines would cut; a comma; quotation marks.
TEXTS = ["a fine film", "so\u0085 what", "one\u2028two", 'he said "no", twice', "caf\u00e9 \u2013 noir", "du\rll"]
LABELS = [1, 0, 1, 0, 1, 0]


def rows_of(source):
    """All rows of a source as dictionaries, in shard order."""
    return [row for shard in source.shards() for batch in source.read(shard) for row in batch.to_pylist()]


def refusals(source):
    return {row[ROW_ID]: row[REFUSED].partition(":")[0] for row in rows_of(source) if row[REFUSED]}


def write(folder: Path, suffix: str, texts=TEXTS, labels=LABELS, stem="train") -> Path:
    path = folder / f"{stem}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if suffix == "parquet":
        pq.write_table(pa.table({"id": range(len(texts)), "text": texts, "label": labels}), path, row_group_size=2)
    elif suffix == "jsonl":
        lines = [json.dumps(dict(zip(("text", "label"), row, strict=True)), ensure_ascii=False)
                 for row in zip(texts, labels, strict=True)]  # fmt: skip
        path.write_bytes("\n".join(lines).encode())
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["text", "label"], *zip(texts, labels, strict=True)])
    return path


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
@pytest.mark.parametrize("shard_rows", [1, 4, 100])
def test_every_format_gives_the_same_sentences_and_labels(tmp_path, suffix, shard_rows):
    path = write(tmp_path, suffix)
    source = HubText(path=str(path), obs=("label", "split"), label_names=("neg", "pos"), shard_rows=shard_rows)
    rows = rows_of(source)
    assert [row[TEXT] for row in rows] == TEXTS
    assert [row["label"] for row in rows] == ["pos", "neg"] * 3
    assert {row["split"] for row in rows} == {"train"}
    assert [row[ROW_ID] for row in rows] == [f"train.{suffix}/{i}" for i in range(6)]
    assert not refusals(source)
    assert len(source.shards()) == -(-6 // shard_rows)


def test_lines_end_at_a_newline_only(tmp_path):
    """In Windows-1252 the byte 0x85 is an ellipsis; in latin-1 and Unicode it ends a line."""
    (tmp_path / "a.csv").write_bytes(b'text,label\r\nwell\x85 no,0\n"two\nlines",1\n')
    (tmp_path / "b.csv").write_bytes(b"text,label\nwell\x85 no,0\n")
    rows = rows_of(HubText(path=str(tmp_path / "a.csv"), encoding="cp1252"))
    assert [row[TEXT] for row in rows] == ["well\u2026 no", "two\nlines"]
    assert [row[TEXT] for row in rows_of(HubText(path=str(tmp_path / "b.csv"), encoding="latin-1"))] == ["well\x85 no"]
    with pytest.raises(Refused, match=r"BAD_ENCODING.*--source\.encoding cp1252"):
        HubText(path=str(tmp_path / "a.csv")).shards()
    with pytest.raises(ValueError, match="unknown encoding: klingon"):
        HubText(path="a.csv", encoding="klingon")


def test_class_names_come_from_the_file_and_are_overruled_by_name(tmp_path):
    table = pa.table({"text": TEXTS, "label": LABELS})
    pq.write_table(
        table.replace_schema_metadata({"huggingface": class_label("label", ("bad", "good"))}), tmp_path / "x.parquet"
    )
    path = str(tmp_path / "x.parquet")
    assert [row["label"] for row in rows_of(HubText(path=path, obs=("label",)))] == ["good", "bad"] * 3
    named = HubText(path=path, obs=("label",), label_names=("neg", "pos"))
    assert [row["label"] for row in rows_of(named)] == ["pos", "neg"] * 3
    pq.write_table(table.replace_schema_metadata({"huggingface": "{}"}), tmp_path / "x.parquet")
    assert [row["label"] for row in rows_of(HubText(path=path, obs=("label",)))] == ["1", "0"] * 3


def test_rows_that_cannot_be_used_stay_and_say_why(tmp_path):
    path = write(tmp_path, "parquet", ["fine", "", None, "  \t", "odd", "unknown"], [1, 0, 1, 0, 7, -1])
    source = HubText(path=str(path), obs=("label",), label_names=("neg", "pos"))
    assert refusals(source) == {
        "train.parquet/1": "EMPTY_TEXT",
        "train.parquet/2": "EMPTY_TEXT",
        "train.parquet/3": "EMPTY_TEXT",
        "train.parquet/4": "BAD_LABEL",
    }
    assert [row["label"] for row in rows_of(source)] == ["pos", "neg", "pos", "neg", None, None]
    assert set(refusals(HubText(path=str(path))).values()) == {"EMPTY_TEXT"}  # whose labels nobody asked for


@pytest.mark.parametrize(
    ("values", "names", "words", "wrong"),
    [
        ([0, 1, 2, -2], ("a", "b"), ["a", "b", None, None], {2, 3}),
        (["b", "1", "", None, "c"], ("a", "b"), ["b", "b", None, None, None], {4}),
        ([1.0, float("nan"), 0.5], ("a", "b"), ["b", None, None], {2}),
        ([-1, 1, 2.0, "x", True], (), ["-1", "1", "2", "x", "True"], set()),
        ([1, "1", "2", "0"], ("1", "2"), ["2", "1", "2", "1"], set()),
    ],
)
def test_labels_become_words(values, names, words, wrong):
    found, problems = read_labels(values, names)
    assert found == words
    assert set(problems) == wrong
    assert all(why.startswith("BAD_LABEL: ") for why in problems.values())


def test_lines_that_are_no_row_are_refused_and_the_others_are_read(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n[1]\n{"text": \n{"text": "two"}\n')
    (tmp_path / "b.csv").write_text("text,label\none,1\ntwo\nthree,0,9\nfour,1\n")
    jsonl = HubText(path=str(tmp_path / "a.jsonl"))
    assert refusals(jsonl) == {"a.jsonl/1": "BAD_ROW", "a.jsonl/2": "BAD_ROW"}
    assert "line 4" in rows_of(jsonl)[2][REFUSED]
    assert [row[TEXT] for row in rows_of(jsonl) if not row[REFUSED]] == ["one", "two"]
    assert refusals(HubText(path=str(tmp_path / "b.csv"), shard_rows=2)) == {"b.csv/1": "BAD_ROW", "b.csv/2": "BAD_ROW"}


def test_columns_are_found_by_name_and_type_and_wrong_names_are_answered(tmp_path):
    table = pa.table({"Review": TEXTS, "Title": TEXTS, "sentiment": LABELS, "stars": [1.5] * 6})
    pq.write_table(table, tmp_path / "a.parquet")
    path = str(tmp_path)
    row = rows_of(HubText(path=path, obs=("stars", "sentiment", "Title")))[1]
    assert (row[TEXT], row["sentiment"], row["stars"], row["Title"]) == (TEXTS[1], "0", 1.5, TEXTS[1])
    with pytest.raises(Refused, match=r"NO_COLUMN.*'Reveiw'\. Did you mean 'Review'\? There are: Review, Title"):
        HubText(path=path, text_column="Reveiw").shards()
    with pytest.raises(Refused, match=r"NO_COLUMN.*no label column 'sentimnt'\. Did you mean 'sentiment'"):
        HubText(path=path, label_column="sentimnt").shards()
    with pytest.raises(Refused, match=r"NOT_TEXT.*'stars' is double; columns of text: Review, Title"):
        HubText(path=path, text_column="stars").shards()
    with pytest.raises(Refused, match=r"NO_COLUMN.*no column 'label'"):
        HubText(path=path, obs=("label",)).shards()
    pq.write_table(table.select(["Title", "stars"]).append_column("other", table["Title"]), tmp_path / "a.parquet")
    with pytest.raises(Refused, match=r"NO_COLUMN.*--source\.text_column; columns of text: Title, other"):
        HubText(path=path).shards()
    with pytest.raises(ValueError, match="'row_id' is what OUTPUT calls a column of its own"):
        HubText(path=path, obs=("row_id",))


def test_a_column_of_lists_is_no_label(tmp_path):
    pq.write_table(pa.table({"text": ["a"], "labels": [[1, 2]]}), tmp_path / "a.parquet")
    with pytest.raises(Refused, match=r"BAD_LABEL_COLUMN.*list"):
        HubText(path=str(tmp_path), obs=("labels",)).shards()
    assert rows_of(HubText(path=str(tmp_path)))[0][TEXT] == "a"


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.parquet", "train"),
        ("data/validation-00000-of-00003.parquet", "validation"),
        ("sst2/dev.jsonl", "validation"),
        ("plain_text/test/0000.parquet", "test"),
        ("reviews_training.csv", "train"),
        ("extra-00001-of-00002.parquet", "extra"),
        ("contest.csv", None),
        ("reviews.csv", None),
    ],
)
def test_a_split_is_read_from_a_files_name(name, split):
    assert split_of(name) == split


def test_one_split_is_chosen_and_a_wrong_one_is_answered(tmp_path):
    for stem in ("train", "dev", "test"):
        write(tmp_path, "parquet", stem=stem)
    source = HubText(path=str(tmp_path), split="validation", obs=("split",))
    assert {(row[ROW_ID].partition("/")[0], row["split"]) for row in rows_of(source)} == {("dev.parquet", "validation")}
    assert list(source.identity()["files"]) == ["dev.parquet"]
    with pytest.raises(Refused, match=r"NO_SPLIT.*'tets'\. Did you mean 'test'\? There are: test, train, validation"):
        HubText(path=str(tmp_path), split="tets").shards()
    write(tmp_path / "x", "parquet", stem="reviews")
    with pytest.raises(Refused, match=r"NO_SPLIT.*no file of 1 names a split"):
        HubText(path=str(tmp_path / "x"), split="test").shards()
    with pytest.raises(Refused, match=r"NO_COLUMN.*no column 'split'"):
        HubText(path=str(tmp_path / "x"), obs=("split",)).shards()


def test_one_broken_file_costs_that_file_only(tmp_path):
    write(tmp_path, "parquet")
    good = (tmp_path / "train.parquet").read_bytes()
    (tmp_path / "test.parquet").write_bytes(good[: len(good) // 2])
    for shuffle in (False, True):
        source = HubText(path=str(tmp_path), shuffle=shuffle)
        shards = {shard.path.endswith("test.parquet"): shard for shard in source.shards()}
        assert sum(batch.num_rows for batch in source.read(shards[False])) == 6
        assert shards[True].rows is None
        with pytest.raises(ShardRefused, match=r"DAMAGED_FILE: test.parquet"):
            list(source.read(shards[True]))
    (tmp_path / "train.parquet").write_bytes(b"")
    with pytest.raises(Refused, match="DAMAGED_FILE: none of 2 files"):
        HubText(path=str(tmp_path)).shards()


def test_bytes_that_are_no_utf8_in_parquet_are_refused(tmp_path):
    column = pa.array([b"caf\xe9"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    source = HubText(path=str(tmp_path))
    with pytest.raises(ShardRefused, match=r"DAMAGED_FILE.*UTF8"):
        list(source.read(source.shards()[0]))


def test_what_is_no_data_set_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(Refused, match="NO_FILES"):
        HubText(path=str(tmp_path)).shards()
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(Refused, match=r"NO_ROWS: none of 1 files.*a.csv is empty"):
        HubText(path=str(tmp_path)).shards()
    (tmp_path / "a.csv").write_text("text,label\n")
    with pytest.raises(Refused, match="NO_ROWS"):
        HubText(path=str(tmp_path)).shards()
    (tmp_path / "a.csv").write_text('text,label\n"a"b,1\n')
    with pytest.raises(Refused, match=r"DAMAGED_FILE.*line 2"):
        HubText(path=str(tmp_path)).shards()
    write(tmp_path, "parquet")
    with pytest.raises(Refused, match=r"MIXED_FORMATS.*\.csv and \.parquet"):
        HubText(path=str(tmp_path)).shards()
    assert len(rows_of(HubText(path=str(tmp_path / "*.parquet")))) == 6


def test_a_file_that_changed_since_it_was_listed_is_refused(tmp_path):
    path = write(tmp_path, "jsonl")
    source = HubText(path=str(path))
    shard = source.shards()[0]
    write(tmp_path, "jsonl", TEXTS[:3], LABELS[:3])
    with pytest.raises(ShardRefused, match=r"ROWS_CHANGED.*6 promised, 3 found"):
        list(source.read(shard))


def test_shuffling_deals_every_row_once_and_mixes_sorted_classes(tmp_path):
    for stem in ("train-00000-of-00002", "train-00001-of-00002"):
        write(tmp_path, "parquet", [f"{stem} {i}" for i in range(300)], [int(i < 150) for i in range(300)], stem)
    plain = rows_of(HubText(path=str(tmp_path), obs=("label", "id"), shard_rows=100))
    source = HubText(path=str(tmp_path), obs=("label", "id"), shard_rows=100, shuffle=True)
    dealt = rows_of(source)

    def content(rows):
        return {row[ROW_ID]: (row[TEXT], row["label"], row["id"]) for row in rows}

    assert content(dealt) == content(plain)
    assert len(dealt) == len(plain) == 600
    for i in range(6):
        ones = sum(row["label"] == "1" for row in dealt[100 * i : 100 * i + 100])
        assert 30 < ones < 70  # 50 expected with a deviation of 5; unshuffled 0 or 100
    other = HubText(path=str(tmp_path), obs=("label",), shard_rows=37, shuffle=True)
    assert [row[ROW_ID] for row in rows_of(other)] == [row[ROW_ID] for row in dealt]


def test_a_place_in_the_dealt_order_does_not_depend_on_where_it_is_cut():
    rows = {"a": 5, "b": 0, "c": 9}
    numbers, places = deal(rows, 0, 14)
    pairs = list(zip(numbers.tolist(), places.tolist(), strict=True))
    assert sorted(pairs) == [(0, i) for i in range(5)] + [(2, i) for i in range(9)]
    cut = [deal(rows, start, start + 2) for start in range(0, 14, 2)]
    assert [n for numbers, _ in cut for n in numbers] == numbers.tolist()
    assert [n for _, places in cut for n in places] == places.tolist()


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub client whose cache holds one data set; keeps what was asked of it."""
    asked = []

    def snapshot_download(repo, **options):
        asked.append((repo, options["repo_type"], options["revision"], tuple(options["allow_patterns"])))
        return str(tmp_path / "snapshots" / COMMIT)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    found.snapshot.cache_clear()
    yield tmp_path / "snapshots" / COMMIT, asked
    found.snapshot.cache_clear()


def test_a_data_set_of_the_hub_is_read_at_one_commit(hub):
    folder, asked = hub
    for stem in ("train-00000-of-00001", "test-00000-of-00001"):
        write(folder / "data", "parquet", stem=stem)
    source = HubText(path="hf://datasets/owner/reviews@main", split="test", obs=("split",))
    shards = source.shards()
    assert [shard.path for shard in shards] == [
        f"hf://datasets/owner/reviews@{COMMIT}/data/test-00000-of-00001.parquet"
    ]
    assert rows_of(source)[1] | {SHARD: ""} == {
        ROW_ID: "data/test-00000-of-00001.parquet/1", SHARD: "", REFUSED: None, TEXT: TEXTS[1], "split": "test",
    }  # fmt: skip
    identity = source.identity()
    digest = hashlib.sha256((folder / "data" / "test-00000-of-00001.parquet").read_bytes()).hexdigest()
    assert identity == {
        "files": {"data/test-00000-of-00001.parquet": f"sha256:{digest}"}, "revision": COMMIT,
    }  # fmt: skip
    assert asked == [
        ("owner/reviews", "dataset", "main", ("*.parquet", "*.jsonl", "*.csv", "*.tsv")),
        ("owner/reviews", "dataset", COMMIT, ("data/test-00000-of-00001.parquet",)),
    ]


def test_a_pattern_or_folder_of_the_hub_chooses(hub):
    folder, asked = hub
    for stem in ("sst2/train", "sst2/test", "cola/train"):
        write(folder, "csv", stem=stem)
    assert [shard.key for shard in HubText(path="hf://owner/glue/sst2").shards()] == [
        f"{shard.key}" for shard in HubText(path="hf://owner/glue/sst2/*.csv").shards()
    ]
    assert len(HubText(path="hf://owner/glue@refs%2Fconvert%2Fparquet/cola").shards()) == 1
    assert asked[-1][2] == "refs/convert/parquet"
    with pytest.raises(Refused, match=f"NO_FILES.*commit {COMMIT}"):
        HubText(path="hf://owner/glue/mrpc").shards()


@pytest.mark.parametrize("error", [LocalEntryNotFoundError("not cached"), OfflineModeIsEnabled("offline")])
def test_no_network_and_no_copy_is_a_problem_of_the_environment(hub, monkeypatch, error):
    def snapshot_download(repo, **options):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(EnvironmentProblem, match="hf download --repo-type dataset owner/reviews"):
        HubText(path="hf://owner/reviews").shards()


@pytest.mark.parametrize(("separator", "said"), [(";", "';'"), ("\t", "tab")])
def test_a_csv_with_another_separator_is_refused_with_the_flag_that_reads_it(tmp_path, separator, said):
    (tmp_path / "a.csv").write_text(f"text{separator}label\nfine, really{separator}pos\n")
    with pytest.raises(Refused, match=f"SEPARATOR: .*--source.separator {said}"):
        HubText(path=str(tmp_path), obs=("label",)).shards()
    rows = rows_of(HubText(path=str(tmp_path), obs=("label",), separator="tab" if separator == "\t" else separator))
    assert [(row[TEXT], row["label"]) for row in rows] == [("fine, really", "pos")]


def test_tabs_part_the_values_of_a_tsv(tmp_path):
    (tmp_path / "a.tsv").write_text("text\tlabel\nfine, really\tpos\n")
    assert [row[TEXT] for row in rows_of(HubText(path=str(tmp_path)))] == ["fine, really"]


def test_half_an_emoji_costs_its_row_only(tmp_path):
    whole = '{"text": "a whole one \\ud83d\\ude00", "label": "a"}'
    half = '{"text": "half \\ud83d", "label": "b"}'
    (tmp_path / "a.jsonl").write_text(f"{whole}\n{half}\n{whole}\n")
    rows = rows_of(HubText(path=str(tmp_path), obs=("label",)))
    assert [row[TEXT] for row in rows] == ["a whole one \U0001f600", None, "a whole one \U0001f600"]
    assert "BAD_ROW: line 2 holds half a character" in rows[1][REFUSED]


def test_a_value_may_be_as_long_as_it_likes(tmp_path):
    long = "word " * 50_000  # twice Python's own limit
    (tmp_path / "a.csv").write_text(f"text,label\n{long},pos\nshort,neg\n")
    assert [len(row[TEXT]) for row in rows_of(HubText(path=str(tmp_path)))] == [len(long), 5]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_byte_order_mark_says_the_encoding(tmp_path, encoding):
    (tmp_path / "a.csv").write_bytes("\ufefftext,label\nnaïve,pos\n".encode(encoding))
    assert [row[TEXT] for row in rows_of(HubText(path=str(tmp_path)))] == ["naïve"]
