"""How a job ends: its exit code and what it says."""

import logging
import os
import signal
import threading

import pytest

from xfm.core.errors import EnvironmentProblem, Refused, ShardRefused
from xfm.engine.job import find_cause, guarded, is_local, scratch_path, versions


@pytest.fixture(autouse=True)
def restored_signal():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def raising(error):
    def run():
        raise error

    return run


class Wrapped(Exception):
    """Like Ray's task errors: the cause is an attribute, and not always a Python cause."""

    def __init__(self, cause):
        super().__init__("worker failed")
        self.cause = cause


def chained(inner):
    try:
        try:
            raise inner
        except Exception as error:
            raise KeyError("on the way") from error
    except KeyError as outer:
        return outer


@pytest.mark.parametrize("code", [0, 3])
def test_the_code_of_a_job_is_passed_on(code):
    assert guarded(lambda: code, "jobs/x.py") == code


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (Refused("NOT_COUNTS", "values are logs"), 4, "jobs/x.py: NOT_COUNTS: values are logs\n"),
        (ShardRefused("NO_ROWS", "none"), 4, "jobs/x.py: NO_ROWS: none\n"),
        (EnvironmentProblem("no cluster"), 5, "jobs/x.py: no cluster\n"),
        (Wrapped(Refused("NO_GPU", "x")), 4, "jobs/x.py: NO_GPU: x\n"),
        (Wrapped(Wrapped(EnvironmentProblem("far away"))), 5, "jobs/x.py: far away\n"),
        (chained(Refused("DEEP", "y")), 4, "jobs/x.py: DEEP: y\n"),
        (Wrapped(chained(Refused("DEEPER", "z"))), 4, "jobs/x.py: DEEPER: z\n"),
    ],
)
def test_problems_of_ours_end_with_their_code_and_one_line(error, code, said, capsys):
    assert guarded(raising(error), "jobs/x.py") == code
    assert capsys.readouterr().err == said


def test_a_bug_is_not_dressed_up():
    with pytest.raises(ZeroDivisionError):
        guarded(lambda: 1 // 0, "jobs/x.py")
    with pytest.raises(SystemExit):
        guarded(raising(SystemExit(7)), "jobs/x.py")


def test_an_interrupt_ends_with_130_and_says_that_the_job_can_continue(caplog):
    with caplog.at_level(logging.WARNING):
        assert guarded(raising(KeyboardInterrupt()), "jobs/x.py") == 130
    assert "the same command continues" in caplog.text


def test_sigterm_unwinds_the_job_and_ends_with_143():
    freed = []

    def run():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(5)
        finally:
            freed.append("lease")
        return 0

    assert guarded(run, "jobs/x.py") == 143
    assert freed == ["lease"]


def test_a_circle_of_causes_is_searched_once():
    first, second = ValueError(), Wrapped(None)
    first.__context__, second.cause = second, first
    assert find_cause(first) is None
    second.__cause__ = problem = Refused("X", "y")
    assert find_cause(first) is problem


def test_a_remote_output_has_its_local_files_in_the_state_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert is_local("runs/a")
    assert is_local("file:///runs/a")
    assert not is_local("s3://bucket/a")
    assert scratch_path("runs/a", "t").as_posix() == "runs/a/t"
    assert scratch_path("file:///runs/a", "t").as_posix() == "/runs/a/t"
    a, b = (scratch_path(f"s3://bucket/{name}", "t") for name in "ab")
    assert a != b
    assert tmp_path in a.parents


def test_versions_name_what_ran():
    found = versions()
    assert found["torch"].startswith("2.")
    assert {"python", "xfm", "ray", "numpy"} <= found.keys()
