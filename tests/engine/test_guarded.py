"""How a job ends: its exit code and what it says."""

import errno
import importlib
import logging
import os
import pkgutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
from ray.exceptions import ActorDiedError, GetTimeoutError, OutOfMemoryError, RayError

import xfm
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


def own_exceptions():
    """Every kind of exception that a module of xfm defines."""
    found = {}
    for module in pkgutil.walk_packages(xfm.__path__, "xfm."):
        if module.name.endswith("__main__"):
            continue
        try:
            names = vars(importlib.import_module(module.name))
        except ImportError:  # needs an extra that is not installed
            continue
        found |= {
            kind: None
            for kind in names.values()
            if isinstance(kind, type) and issubclass(kind, BaseException) and kind.__module__.startswith("xfm.")
        }
    return sorted(found, key=lambda kind: kind.__qualname__)


def some(kind):
    for arguments in ((), ("why",), ("CODE", "why")):
        with suppress(TypeError):
            return kind(*arguments)
    pytest.fail(f"{kind} cannot be made of one or two words")


def test_no_kind_of_exception_shows_a_traceback(capsys, tmp_path):
    others = [ZeroDivisionError, KeyError, RecursionError, RayError, ActorDiedError, OutOfMemoryError, GetTimeoutError]
    kinds = [*own_exceptions(), *others]
    assert {Refused, EnvironmentProblem, ShardRefused} <= set(kinds)
    assert len(kinds) > 12
    for kind in kinds:
        error = some(kind)
        if isinstance(error, SystemExit):
            continue
        code = guarded(raising(error), "jobs/x.py", lambda: str(tmp_path))
        said = capsys.readouterr().err
        assert code in (1, 4, 5), kind
        assert said.count("\n") == 1, kind
        assert "Traceback" not in said


def test_a_fault_keeps_its_traceback_in_output_and_says_where_without_credentials(capsys, tmp_path):
    def run():
        raise ValueError("cannot reach postgresql://anna:hunter22@db/x\nsecond line")

    assert guarded(run, "jobs/x.py", lambda: str(tmp_path)) == 1
    (file,) = tmp_path.glob("traceback-*.txt")
    said = capsys.readouterr().err
    assert said.startswith("jobs/x.py: ValueError: cannot reach postgresql://")
    assert f"the traceback is in {file}" in said
    assert "the same command continues" in said
    assert "in run" in file.read_text()
    assert "hunter22" not in said + file.read_text()


@pytest.mark.parametrize("output", [None, "/nowhere/at/all", "s3://bucket/x"])
def test_without_an_output_the_traceback_lies_among_temporary_files(capsys, tmp_path, monkeypatch, output):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert guarded(lambda: 1 // 0, "jobs/x.py", lambda: output) == 1
    (file,) = tmp_path.glob("xfm-traceback-*.txt")
    assert str(file) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), "no space left at /data/x"),
        (MemoryError("Unable to allocate 3 GiB"), "not enough memory: Unable to allocate 3 GiB"),
    ],
)
def test_what_the_machine_lacks_is_no_fault(error, said, capsys):
    assert guarded(raising(error), "jobs/x.py") == 5
    assert capsys.readouterr().err.startswith(f"jobs/x.py: {said}")


def test_an_exit_passes():
    with pytest.raises(SystemExit):
        guarded(raising(SystemExit(7)), "jobs/x.py")


def test_a_reader_that_left_ends_the_command_without_a_word(tmp_path):
    command = f"{sys.executable} -m xfm list 2>{tmp_path}/said | true; cat {tmp_path}/said"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == ""


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
