"""The commit protocol in a local folder."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xfm.core import storage
from xfm.core.errors import EnvironmentProblem, Refused
from xfm.core.ledger import Receipt, Refusal
from xfm.engine.output import Output, write_part

KEYS = ["s-0", "s-1", "s-2"]


def a_run(batch=8, files=None):
    recipe = {"config": {"batch": batch, "backbone": {"kind": "scgpt"}}, "weights": {"sha256": "ab"}}
    if files is not None:
        recipe["data"] = {"files": files, "layers": dict.fromkeys(files, "X")}
    return {"job": "embed", "recipe": recipe, "versions": {"xfm": "0"}}


def a_table(key):
    rng = np.random.default_rng(int(key[-1]))
    flat = pa.array(rng.normal(size=12).astype("f4"))
    return pa.table({"row_id": [f"{key}/{i}" for i in range(4)], "cls_l00": pa.FixedSizeListArray.from_arrays(flat, 3)})


def commit(output, key, refused=(), path=""):
    digest, size = write_part(output.uri, key, a_table(key))
    refusals = [Refusal(key, row, "read", "NAN", "a value is NaN\nin two lines") for row in refused]
    output.record(Receipt(key, 4, digest, size, seconds=0.1, attempts=1, path=path), refusals)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_finished_output_has_every_shard_once_and_in_order(tmp_path):
    with Output(str(tmp_path / "o"), a_run()) as output:
        for key in reversed(KEYS):
            commit(output, key, refused=[f"{key}/bad"])
        output.finish(KEYS)
        output.write_json("report.json", {"ok": True})
        output.write_bytes("plots/x.png", b"png")
    manifest = lines(tmp_path / "o/manifest.jsonl")
    assert [line["key"] for line in manifest] == KEYS
    for line in manifest:
        data = (tmp_path / f"o/parts/{line['key']}.parquet").read_bytes()
        assert (line["sha256"], line["bytes"], line["rows"], line["refused"]) == (
            sha256(data).hexdigest(), len(data), 4, 1)  # fmt: skip
    assert [line["key"] for line in lines(tmp_path / "o/quarantine.jsonl")] == [f"{key}/bad" for key in KEYS]
    assert pq.read_table(tmp_path / "o/parts/s-1.parquet").equals(a_table("s-1"))
    assert (tmp_path / "o/plots/x.png").read_bytes() == b"png"
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_bytes_of_a_part_do_not_depend_on_how_its_table_is_chunked(tmp_path):
    table = a_table("s-0")
    cut = pa.concat_tables([table.slice(0, 1), table.slice(1, 2), table.slice(3)])
    assert write_part(str(tmp_path), "a", table) == write_part(str(tmp_path), "b", cut)


def test_a_rerun_knows_what_is_committed_and_counts_itself(tmp_path):
    with Output(str(tmp_path), a_run()) as output:
        commit(output, "s-0", refused=["s-0/bad"])
        output.write_json("report.json", {})
    with Output(str(tmp_path), a_run()) as output:
        assert list(output.committed) == ["s-0"]
        assert [refusal.key for refusal in output.quarantined()] == ["s-0/bad"]
        assert not (tmp_path / "report.json").exists()  # its presence means success
        assert output.attempt == 2
    assert json.loads((tmp_path / "run.json").read_text())["attempts"] == 2


def test_a_torn_part_a_torn_line_and_a_lost_refusal_are_done_again(tmp_path):
    with Output(str(tmp_path), a_run()) as output:
        for key in KEYS:
            commit(output, key, refused=["s-1/bad"] if key == "s-1" else [])
    part = tmp_path / "parts/s-0.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    (tmp_path / "quarantine.jsonl").write_text("")
    with (tmp_path / "manifest.jsonl").open("a") as manifest:
        manifest.write('{"key": "s-9", "ro')
    (tmp_path / "parts/.s-9.parquet.1.ab.tmp").write_bytes(b"x")
    with Output(str(tmp_path), a_run()) as output:
        assert list(output.committed) == ["s-2"]
        assert [path.name for path in (tmp_path / "parts").iterdir()] == ["s-2.parquet"]
        for key in ("s-0", "s-1"):
            commit(output, key)
        output.finish(KEYS)
    assert [line["key"] for line in lines(tmp_path / "manifest.jsonl")] == KEYS


def test_a_refused_shard_is_quarantined_once_and_tried_again(tmp_path):
    gone = Refusal("s-1", "b.h5ad", "read", "H5_TRUNCATED", "cut")
    for _ in range(2):
        with Output(str(tmp_path), a_run()) as output:
            assert "s-1" not in output.committed
            if "s-0" not in output.committed:
                commit(output, "s-0")
            output.refuse_shard([gone])
            output.refuse_shard([gone])
            output.finish(KEYS)
        assert [line["code"] for line in lines(tmp_path / "quarantine.jsonl")] == ["H5_TRUNCATED"]
    with Output(str(tmp_path), a_run()) as output:
        output.refuse_shard([gone])
        commit(output, "s-1", refused=["s-1/7"])  # refused and then, in the same run, computed
        assert [line["key"] for line in lines(tmp_path / "quarantine.jsonl")] == ["s-1/7"]


def test_other_settings_are_refused_by_name_and_change_nothing(tmp_path):
    with Output(str(tmp_path), a_run()) as output:
        commit(output, "s-0")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lease"}
    with pytest.raises(Refused, match=r"config\.batch: 8 -> 16") as caught, Output(str(tmp_path), a_run(16)):
        pass
    assert caught.value.code == "OTHER_RUN"
    assert "--output" in caught.value.message
    assert before == {path: path.read_bytes() for path in before}
    with Output(str(tmp_path), a_run()) as output:  # and the lease was given back
        assert list(output.committed) == ["s-0"]


def test_a_file_may_change_until_something_was_committed_from_it(tmp_path):
    with Output(str(tmp_path), a_run(files={"a.h5ad": "1", "x/b.h5ad": "broken"})) as output:
        commit(output, "s-0", path="/data/a.h5ad")
        output.refuse_shard([Refusal("s-1", "x/b.h5ad", "read", "H5_TRUNCATED", "cut")])
    repaired = {"a.h5ad": "1", "x/b.h5ad": "2", "c.h5ad": "3"}
    with Output(str(tmp_path), a_run(files=repaired)) as output:
        commit(output, "s-1", path="/data/x/b.h5ad")
    assert json.loads((tmp_path / "run.json").read_text())["recipe"]["data"]["files"] == repaired
    for files in (repaired | {"x/b.h5ad": "4"}, {"a.h5ad": "1"}):
        with pytest.raises(Refused, match=r"data\.files\.x/b\.h5ad"), Output(str(tmp_path), a_run(files=files)):
            pass


def test_all_files_count_where_a_shard_does_not_say_where_it_came_from(tmp_path):
    with Output(str(tmp_path), a_run(files={"a": "1", "b": "1"})) as output:
        commit(output, "s-0")
    with pytest.raises(Refused, match="OTHER_RUN"), Output(str(tmp_path), a_run(files={"a": "1", "b": "2"})):
        pass


def test_a_second_writer_is_refused_and_told_who_is_there(tmp_path):
    with Output(str(tmp_path), a_run()), pytest.raises(Refused, match=f"LOCKED.*pid {os.getpid()} on"):
        Output(str(tmp_path), a_run()).__enter__()


def test_a_killed_writer_leaves_the_way_free(tmp_path):
    script = (
        "import sys, time\nfrom xfm.engine.output import Output\n"
        f"with Output({str(tmp_path)!r}, {a_run()!r}):\n    print('in', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"in\n"
        with pytest.raises(Refused, match=f"LOCKED.*pid {holder.pid} on"):
            Output(str(tmp_path), a_run()).__enter__()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with Output(str(tmp_path), a_run()) as output:
        assert output.attempt == 2


def test_a_writer_whose_lease_was_removed_writes_no_more(tmp_path):
    with Output(str(tmp_path), a_run()) as output:
        (tmp_path / ".lease").unlink()
        with pytest.raises(Refused, match="LEASE_LOST"):
            commit(output, "s-0")
    assert (tmp_path / "manifest.jsonl").read_text() == ""


def test_places_that_are_not_ours_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/report.html").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/run.json").write_text("[1]")
    found = {}
    for name in ("file", "file/below", "theirs", "other"):
        with pytest.raises(Refused) as caught:
            Output(str(tmp_path / name), a_run()).__enter__()
        found[name] = caught.value.code
    assert found == {"file": "OUTPUT_UNUSABLE", "file/below": "OUTPUT_UNUSABLE", "theirs": "FOREIGN_OUTPUT",
                     "other": "FOREIGN_OUTPUT"}  # fmt: skip
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["report.html"]
    for uri in ("", "foo://a/b", "hf://a/b", "s3://"):
        with pytest.raises(Refused, match="OUTPUT_URI"):
            Output(uri, a_run())


def test_a_folder_with_unrelated_files_is_accepted_and_they_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with Output(str(tmp_path), a_run()) as output:
        commit(output, "s-0")
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["", "a/b", "../a", "..", ".hidden", "a\\b", "a\nb", "x" * 201])
def test_names_of_parts_do_not_escape(tmp_path, name):
    with pytest.raises(Refused, match="BAD_NAME"):
        write_part(str(tmp_path), name, a_table("s-0"))
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize("name", ["", "../a", "..", ".hidden", "a\\b", "a\nb", "x" * 201, "a/../../../b", "a//b", "a/"])
def test_names_of_files_do_not_escape(tmp_path, name):
    with Output(str(tmp_path / "out"), a_run()) as output:
        with pytest.raises(Refused, match="BAD_NAME"):
            output.write_bytes(f"plots/{name}", b"")
        output.write_bytes("plots/a/b", b"deeper")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "plots" / "a" / "b").read_bytes() == b"deeper"


def test_the_protocol_files_cannot_be_written_as_reports(tmp_path):
    with Output(str(tmp_path), a_run()) as output:
        for name in ("run.json", "manifest.jsonl", "parts/s-0.parquet"):
            with pytest.raises(ValueError, match="belongs to the commit protocol"):
                output.write_bytes(name, b"")


def test_a_shard_computed_twice_must_be_the_same(tmp_path):
    with Output(str(tmp_path), a_run()) as output:
        commit(output, "s-0")
        commit(output, "s-0")
        digest, size = write_part(output.uri, "s-0", a_table("s-1"))
        with pytest.raises(ValueError, match="twice with different results"):
            output.record(Receipt("s-0", 4, digest, size, 0.1, 1))
    assert len(lines(tmp_path / "manifest.jsonl")) == 1


def test_a_part_that_the_driver_cannot_see_is_not_committed(tmp_path):
    with Output(str(tmp_path), a_run()) as output, pytest.raises(EnvironmentProblem, match="all nodes share"):
        output.record(Receipt("s-0", 4, "ab", 100, 0.1, 1))


def test_a_relative_output_becomes_absolute_and_workers_insist_on_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Output("o", a_run()).uri == str(tmp_path / "o")
    assert Output(f"file://{tmp_path}/with%20space", a_run()).uri == str(tmp_path / "with space")
    with pytest.raises(ValueError, match="relative"):
        write_part("o", "s-0", a_table("s-0"))


@pytest.mark.parametrize("step", ["part", "quarantine", "manifest", "finish"])
def test_a_full_disk_publishes_nothing_and_names_itself(tmp_path, monkeypatch, step):
    real, full = os.write, False

    def write(file, data):
        if full:
            real(file, bytes(data)[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data)

    monkeypatch.setattr(storage.os, "write", write)
    output = Output(str(tmp_path), a_run()).__enter__()
    commit(output, "s-0")
    digest, size = write_part(output.uri, "s-1", a_table("s-1"))
    before = (tmp_path / "manifest.jsonl").read_bytes(), (tmp_path / "quarantine.jsonl").read_bytes()
    full = True
    refusals = [Refusal("s-1", "r", "read", "NAN", "")] if step == "quarantine" else []
    act = {"part": lambda: write_part(output.uri, "s-2", a_table("s-2")), "finish": lambda: output.finish(KEYS)}.get(
        step, lambda: output.record(Receipt("s-1", 4, digest, size, 0.1, 1), refusals)
    )
    with pytest.raises(EnvironmentProblem, match="no space left"):
        act()
    full = False
    output.__exit__(None, None, None)
    assert before == ((tmp_path / "manifest.jsonl").read_bytes(), (tmp_path / "quarantine.jsonl").read_bytes())
    assert not list(tmp_path.rglob("*.tmp"))
    with Output(str(tmp_path), a_run()) as output:
        assert list(output.committed) == ["s-0"]
        for key in KEYS[1:]:
            commit(output, key)
        output.finish(KEYS)
    assert [line["key"] for line in lines(tmp_path / "manifest.jsonl")] == KEYS


def test_a_file_size_limit_of_the_system_is_reported_as_no_space(tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    script = (
        "import pyarrow as pa, signal\nfrom xfm.engine.output import write_part\nimport numpy as np\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "table = pa.table({'x': np.random.default_rng(0).normal(size=10_000)})\n"
        f"write_part({str(tmp_path)!r}, 'a', table)"
    )
    done = subprocess.run([sys.executable, "-c", script], preexec_fn=limit, capture_output=True, text=True, check=False)
    assert "EnvironmentProblem: no space left" in done.stderr
    assert list((tmp_path / "parts").iterdir()) == []
