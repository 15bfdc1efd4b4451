"""Kill -9 at every step of the commit: a rerun ends like a run that nobody disturbed."""

import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

DRIVER = Path(__file__).with_name("commit_driver.py")
_spec = importlib.util.spec_from_file_location("commit_driver", DRIVER)
driver = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(driver)


def kill_at(step, output):
    done = subprocess.run([sys.executable, str(DRIVER), str(output), step], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, f"{step} was not reached: {done.stderr}"


def what_is_left(output):
    """Everything a reader sees, but for run.json, which counts attempts."""
    files = {path.relative_to(output).as_posix(): path.read_bytes() for path in output.rglob("*") if path.is_file()}
    assert json.loads(files.pop("run.json"))["recipe"] == driver.RUN["recipe"]
    files.pop(".lease")
    return files


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed")
    driver.work(str(output))
    left = what_is_left(output)
    assert sorted(left) == ["manifest.jsonl", *(f"parts/s-{i}.parquet" for i in (0, 1, 2, 4)), "quarantine.jsonl"]
    assert [json.loads(line)["key"] for line in left["manifest.jsonl"].splitlines()] == ["s-0", "s-1", "s-2", "s-4"]
    assert [json.loads(line)["shard"] for line in left["quarantine.jsonl"].splitlines()] == ["s-2", "s-2", "s-3"]
    return left


@pytest.mark.parametrize("step", driver.STEPS)
def test_a_rerun_after_a_kill_ends_like_an_undisturbed_run(tmp_path, undisturbed, step):
    kill_at(step, tmp_path)
    driver.work(str(tmp_path))
    assert what_is_left(tmp_path) == undisturbed


def test_a_kill_during_the_repair_after_a_kill_is_survived_too(tmp_path, undisturbed):
    kill_at("manifest: in its line", tmp_path)
    kill_at("start: before the manifest", tmp_path)
    kill_at("quarantine: after its line", tmp_path)
    kill_at("finish: between quarantine and manifest", tmp_path)
    driver.work(str(tmp_path))
    assert what_is_left(tmp_path) == undisturbed
