"""What a job log says of progress: rates and the time left, from a clock of our own."""

import logging
import time

import pytest

from xfm.engine import progress as module
from xfm.engine.progress import ProgressLog, format_seconds


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_line_says_rows_rate_and_time_left(clock):
    progress = ProgressLog("embed", total=1000, shards=4)
    assert progress.line() == "embed: 0/1,000 cells, 0/4 shards, 0.0 cells/s"
    clock[0] += 10
    progress.add(250)
    assert progress.line() == "embed: 250/1,000 cells, 1/4 shards, 25.0 cells/s, 0:30 left"
    clock[0] += 30
    for _ in range(3):
        progress.add(250)
    assert progress.line() == "embed: 1,000/1,000 cells, 4/4 shards, 25.0 cells/s"


def test_without_a_total_shards_tell_how_far_it_is(clock):
    progress = ProgressLog("fit", total=None, shards=5, unit="rows")
    clock[0] += 60
    progress.add(7000)
    assert progress.line() == "fit: 7,000 rows, 1/5 shards, 116.7 rows/s, 4:00 left"


@pytest.mark.parametrize(("total", "shards"), [(0, 0), (None, 0), (0, 1)])
def test_nothing_to_do_is_no_division_by_zero(total, shards, clock):
    assert "left" not in ProgressLog("embed", total, shards).line()


def test_a_log_gets_a_line_now_and_then_and_a_last_one(caplog):
    with caplog.at_level(logging.INFO), ProgressLog("embed", 10, 1, every_s=0.02) as progress:
        time.sleep(0.1)
        progress.add(10)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) >= 3
    assert lines[-1].startswith("embed: 10/10 cells, 1/1 shards")


def test_a_failed_stage_says_no_last_line_and_leaves_no_thread(caplog):
    with caplog.at_level(logging.INFO), pytest.raises(ValueError, match="stop"), ProgressLog("e", 1, 1) as progress:
        raise ValueError("stop")
    assert not caplog.records
    assert not progress._thread.is_alive()


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3725, "1:02:05"), (90_000, "25:00:00")])
def test_durations_are_written_for_people(seconds, text):
    assert format_seconds(seconds) == text
