"""The spool and its sender, against a server made of a list."""

import json
import math
import subprocess
import sys
import threading
import time

import pytest

from xfm.track.sender import LineRefused, RunGone, Sidecar, SpoolSender, TryLater
from xfm.track.spool import Spool, history
from xfm.track.tracker import open_run


class ListServer:
    """Keeps what it is sent; `trouble` is raised first, once per entry; lines holding `bad` are refused."""

    def __init__(self, trouble=(), bad=None):
        self.got, self.trouble, self.bad = [], list(trouble), bad

    def deliver(self, records, runs):
        if self.trouble:
            raise self.trouble.pop(0)
        if self.bad is not None and any(self.bad in json.dumps(record) for record in records):
            raise LineRefused("not this one")
        if records[0]["op"] == "open":
            runs.setdefault(records[0]["run"], f"server-{len(runs)}")
        self.got.extend(records)


def job(path, server, name="job", close_timeout_s=10.0):
    spool = Spool(path)
    sender = SpoolSender(spool, "list", lambda: server)
    tracker = open_run(spool, name, sender=sender, close_timeout_s=close_timeout_s)
    sender.start()
    return tracker


def sync(path, server):
    sender = SpoolSender(Spool(path), "list", lambda: server)
    sender.start(is_sync=True)
    return sender.finish(10), sender.refused()


def steps(server):
    return [record["step"] for record in server.got if record["op"] == "metrics"]


def test_lines_arrive_once_and_in_order(tmp_path):
    server = ListServer()
    tracker = job(tmp_path / "tracking.jsonl", server)
    for step in range(1200):  # more than are read at once
        tracker.metrics({"loss": 1.0}, step)
    assert tracker.close()
    assert steps(server) == list(range(1200))
    assert [server.got[0]["op"], server.got[-1]["op"]] == ["open", "close"]


def test_a_server_in_trouble_gets_everything_when_it_is_well(tmp_path, caplog):
    server = ListServer(trouble=[TryLater("no answer"), OSError("reset")])
    tracker = job(tmp_path / "tracking.jsonl", server)
    tracker.metrics({"loss": 1.0}, 1)
    assert tracker.close()
    assert steps(server) == [1]
    assert caplog.text.count("the job goes on") == 1


def test_a_server_that_hangs_holds_up_neither_calls_nor_the_end_and_sync_delivers(tmp_path, caplog):
    release = threading.Event()

    class Hanging(ListServer):
        def deliver(self, records, runs):
            release.wait()
            raise TryLater("timed out")

    path = tmp_path / "tracking.jsonl"
    tracker = job(path, Hanging(), close_timeout_s=0.3)
    for step in range(100):
        tracker.metrics({"loss": 1.0}, step)
    assert not tracker.close()  # none of these returns if it waits for the server, which is let go below
    assert f"python -m xfm sync {path}" in caplog.text
    release.set()
    tracker._session.sender._thread.join(5)  # the hanging call returns, and lets go of the spool
    well = ListServer()
    assert sync(path, well) == (0, [])
    assert steps(well) == list(range(100))


def test_sync_goes_on_where_the_job_stopped(tmp_path):
    path = tmp_path / "tracking.jsonl"
    first, second = ListServer(), ListServer()
    tracker = job(path, first)
    tracker.metrics({"loss": 1.0}, 1)
    assert tracker.close()
    open_run(Spool(path), "job").metrics({"loss": 0.5}, 2)  # a second attempt, killed before anything was sent
    assert sync(path, second) == (0, [])
    assert [record["op"] for record in second.got] == ["open", "metrics", "close"]
    assert second.got[-1]["status"] == "KILLED"
    assert sync(path, second)[0] == 0
    assert len(second.got) == 3


def test_a_crash_between_sending_and_noting_sends_the_same_line_again(tmp_path):
    path = tmp_path / "tracking.jsonl"
    server = ListServer()
    assert job(path, server).close()
    sidecar = Sidecar(Spool(path), "list")
    sidecar.load()
    sidecar.progress.line, sidecar.progress.offset = 1, Spool(path).read(limit=1)[0].stop
    sidecar.save()
    assert sync(path, server) == (0, [])
    assert server.got[-1] == server.got[-2]  # the time is part of the line, so a server can tell


def test_a_refused_line_does_not_stop_the_others_and_is_tried_again(tmp_path):
    path = tmp_path / "tracking.jsonl"
    server = ListServer(bad="poison")
    tracker = job(path, server)
    for name in ("a", "poison", "b"):
        tracker.metrics({name: 1.0}, 1)
    assert tracker.close()
    assert [name for record in server.got for name in record.get("metrics", ())] == ["a", "b"]
    assert sync(path, server) == (0, ["line 3: not this one"])
    server.bad = None
    assert sync(path, server) == (0, [])
    assert "poison" in server.got[-1]["metrics"]


def test_a_server_that_lost_the_run_gets_it_whole(tmp_path):
    path = tmp_path / "tracking.jsonl"
    tracker = job(path, ListServer())
    tracker.metrics({"loss": 1.0}, 1)
    assert tracker.close()
    fresh = ListServer(trouble=[RunGone("unknown run")])
    tracker = job(path, fresh)
    assert tracker.close()
    assert [record["op"] for record in fresh.got] == ["open", "metrics", "close", "open", "close"]


def test_a_rerun_continues_the_same_run_as_its_next_attempt(tmp_path):
    path = tmp_path / "tracking.jsonl"
    first = open_run(Spool(path), "job")
    first.child("probe").metrics({"mse": 1.0})  # killed here
    second = open_run(Spool(path), "job")
    second.child("probe")
    second.close()
    lines = [line.record for line in Spool(path).read()]
    opened = [record for record in lines if record["op"] == "open"]
    assert [record["attempt"] for record in opened] == [1, 1, 2, 2]
    assert opened[0]["run"] == opened[2]["run"]
    assert opened[1]["run"] == opened[3]["run"]
    assert [record["status"] for record in lines if record["op"] == "close"] == ["KILLED"] * 2 + ["FINISHED"] * 2
    assert history(Spool(path)).unclosed == []


def test_a_child_is_known_by_its_key_whatever_it_is_called_and_a_closed_one_stays_closed(tmp_path):
    path = tmp_path / "tracking.jsonl"
    first = open_run(Spool(path), "job")
    first.child("trial 1: lr 0.1", key="trial-1", tags={"status": "running"}).close()
    first.child("trial 2", key="trial-2").metrics({"f1": 0.5}, 1)  # killed here
    second = open_run(Spool(path), "job")
    second.child("trial 2: lr 0.3", key="trial-2").metrics({"f1": 0.5}, 1)
    second.close()
    lines = [line.record for line in Spool(path).read()]
    root = lines[0]["run"]
    opened = [record["run"] for record in lines if record["op"] == "open"]
    assert opened == [root, f"{root}/trial-1", f"{root}/trial-2", root, f"{root}/trial-2"]
    assert lines[1]["tags"] == {"status": "running"}
    assert lines[1]["parent"] == root
    closed = [(record["run"].rpartition("/")[2], record["status"]) for record in lines if record["op"] == "close"]
    assert closed == [("trial-1", "FINISHED"), ("trial-2", "KILLED"), (root, "KILLED"), ("trial-2", "FINISHED"),
                      (root, "FINISHED")]  # fmt: skip
    assert sum(record["op"] == "metrics" for record in lines) == 1  # said twice, kept once


def test_a_torn_line_is_passed_over_and_the_next_stays_whole(tmp_path):
    path = tmp_path / "tracking.jsonl"
    open_run(Spool(path), "job").metrics({"loss": 1.0}, 1)
    with path.open("ab") as file:
        file.write(b'{"op": "metrics", "ru')
    server = ListServer()
    tracker = job(path, server)
    tracker.metrics({"loss": 2.0}, 2)
    assert tracker.close()
    assert steps(server) == [1, 2]


def test_a_line_survives_the_kill_of_its_process(tmp_path):
    path = tmp_path / "tracking.jsonl"
    program = (
        "import os, signal, sys; from pathlib import Path; from xfm.track.spool import Spool;"
        "Spool(Path(sys.argv[1])).append({'op': 'tags'}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == -9
    assert [line.record for line in Spool(path).read()] == [{"op": "tags"}]


def test_numbers_that_are_none_are_dropped_and_said(tmp_path):
    spool = Spool(tmp_path / "tracking.jsonl")
    open_run(spool, "job").metrics({"good": 1.0, "bad": math.nan, "huge": -math.inf}, 4)
    record = spool.read()[-1].record
    assert record["metrics"] == {"good": 1.0}
    assert record["dropped"] == {"bad": "nan", "huge": "-inf"}


def test_no_secret_reaches_the_spool(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "canary-of-the-environment")
    path = tmp_path / "tracking.jsonl"
    tracker = open_run(Spool(path), "run of canary-of-the-environment", tags={"api_key": "canary-1"})
    tracker.params({"store": {"password": "canary-2", "uri": "s3://me:canary-3@host/b"}, "lr": 0.1})
    tracker.tags({"note": "Bearer canary-4"})
    tracker.dataset("census", "abc", "https://me:canary-5@host/data")
    tracker.child("canary-of-the-environment").close()
    tracker.close()
    assert "canary" not in path.read_text()
    assert '"lr": "0.1"' in path.read_text()


def test_a_full_disk_loses_records_but_not_the_job(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("")
    tracker = job(blocked / "tracking.jsonl", ListServer(), close_timeout_s=0.1)
    tracker.metrics({"loss": 1.0})
    tracker.close()
    assert caplog.text.count("cannot write") == 1


def test_two_senders_of_one_spool_do_not_mix(tmp_path, monkeypatch):
    path = tmp_path / "tracking.jsonl"
    server = ListServer()
    tracker = job(path, server)
    while not server.got:
        time.sleep(0.01)
    other = SpoolSender(Spool(path), "list", lambda: pytest.fail("a second sender got through"))
    other.start(is_sync=True)
    other.finish(0.2)
    assert [record["op"] for record in server.got] == ["open"]
    other._thread.join(5)
    assert tracker.close()
