"""A task that another installed package brings is one like any other: no class label, no checkpoint, not ours."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import REPOSITORY
from tests.text_examples import sentences, write_encoder
from xfm.core.errors import ENVIRONMENT

PACKAGE = REPOSITORY / "tests" / "fixtures" / "mean_task"
PLACES = {"train": slice(0, 24), "validation": slice(24, 32), "test": slice(32, 40)}
SCORES = np.random.default_rng(0).normal(3.0, 1.0, 40).round(3)
LOST = 5  # of the training rows one has no number

HERE = """
import json, sys
from in_process import run_here
from xfm.engine.learn_config import FinetuneConfig
job, trained = run_here(FinetuneConfig.model_validate_json(sys.argv[1]))
assert "mean_task" in sys.modules
said = {"kind": job.kind, "numbers": job.report.numbers, "warnings": job.report.warnings, "steps": trained.steps}
said["rows"] = [row for table in job.report.tables for row in table.rows]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the metadata that installing the package leaves."""
    return write_metadata(tmp_path_factory.mktemp("site"), (PACKAGE / "pyproject.toml").read_text())


def write_metadata(folder: Path, pyproject: str) -> Path:
    """What pip makes of a pyproject.toml, as far as entry points go."""
    project = tomllib.loads(pyproject)["project"]
    name, version, groups = project["name"], project["version"], project["entry-points"]
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    text = [f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in points.items())
            for group, points in groups.items()]  # fmt: skip
    (info / "entry_points.txt").write_text("\n".join(text))
    return folder


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences with a number each, in the three files of a data set, and an encoder that tokenises them."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "data").mkdir()
    texts, _ = sentences(40)
    scores = pa.array(SCORES.tolist(), mask=np.arange(40) == LOST)
    for name, own in PLACES.items():
        table = pa.table({"text": texts, "score": scores})
        pq.write_table(table.slice(own.start, own.stop - own.start), folder / "data" / f"{name}.parquet")
    write_encoder(folder / "encoder", "distilbert")
    return folder


def path(*folders: Path) -> str:
    return os.pathsep.join(map(str, (REPOSITORY, *folders)))


def settings(given: Path, output: Path) -> dict[str, object]:
    return {
        "source.kind": "hub_text", "source.path": str(given / "data"), "backbone.kind": "hf_text",
        "backbone.checkpoint": str(given / "encoder"), "task.kind": "mean_of_column", "split": "split", "epochs": 200,
        "batch_size": 23, "lr": 0.1, "watch": "loss", "checkpoint_every": 50, "output": str(output),
    }  # fmt: skip


def truth() -> tuple[float, float, float]:
    """The mean of the training rows, and the squared errors of it and of 0 on the test rows."""
    mean, test = np.delete(SCORES[PLACES["train"]], LOST).mean(), SCORES[PLACES["test"]]
    return mean, ((test - mean) ** 2).mean(), (test**2).mean()


@pytest.mark.slow
def test_a_task_of_another_package_runs_from_its_rows_to_its_report(installed, given, tmp_path):
    nested: dict[str, object] = {}
    for name, value in settings(given, tmp_path).items():
        section, _, field = name.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[field] = value  # type: ignore[index]
    env = os.environ | {"PYTHONPATH": path(installed, PACKAGE, REPOSITORY / "tests" / "contracts")}
    done = subprocess.run([sys.executable, "-c", HERE, json.dumps(nested)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    mean, by_mean, by_zero = truth()
    assert (found["kind"], found["steps"]) == (None, 200)
    assert found["numbers"]["mean"] == pytest.approx(mean, abs=0.01)
    errors = dict(found["rows"])
    assert errors["zero"] == pytest.approx(by_zero, rel=1e-5)
    assert errors["mean"] == pytest.approx(by_mean, abs=0.02)
    assert found["warnings"] == ["1 rows belong to no part of --split or have no score: they were left out."]


@pytest.mark.slow
def test_it_is_listed_and_its_flags_are_shown(installed):
    env = os.environ | {"PYTHONPATH": path(installed, PACKAGE), "COLUMNS": "200"}
    command = [sys.executable, "-m", "xfm", "list"]
    listed = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert "mean_of_column" in listed.stdout
    command = [sys.executable, str(REPOSITORY / "jobs" / "finetune.py"), "--task.kind", "mean_of_column", "--help"]
    shown = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert "--task.column" in shown.stdout


@pytest.mark.nightly
@pytest.mark.ray
def test_a_user_trains_it_with_two_workers_and_again(cluster, installed, given, tmp_path):
    flags = [word for name, value in settings(given, tmp_path / "out").items() for word in (f"--{name}", str(value))]
    env = {"PYTHONPATH": path(installed, PACKAGE)}
    printed = cluster.run("finetune", *flags, "--workers", "2", cwd=tmp_path, **env)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    mean, by_mean, by_zero = truth()
    assert "The mean is" in printed
    assert report["numbers"]["mean"] == pytest.approx(mean, abs=0.01)
    assert dict(report["tables"][0]["rows"]) == pytest.approx({"mean": by_mean, "zero": by_zero}, abs=0.02)
    assert not (tmp_path / "out" / "checkpoint").exists()
    cluster.run("finetune", *flags, "--workers", "2", cwd=tmp_path, **env)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["numbers"] == report["numbers"]


@pytest.mark.slow
@pytest.mark.ray
def test_a_package_that_the_nodes_of_the_cluster_lack_is_named(cluster, given, tmp_path):
    """It is a copy under another name, which the driver alone can import."""
    site = tmp_path / "site"  # not the folder that the job starts in, which Ray's workers search too
    shutil.copytree(PACKAGE / "mean_task", site / "here_alone")
    file = site / "here_alone" / "settings.py"
    file.write_text(file.read_text().replace("mean_task.task:", "here_alone.task:"))
    pyproject = (PACKAGE / "pyproject.toml").read_text()
    write_metadata(site, pyproject.replace("mean_task.settings:", "here_alone.settings:"))
    flags = [word for name, value in settings(given, tmp_path / "out").items() for word in (f"--{name}", str(value))]
    printed = cluster.run("finetune", *flags, cwd=tmp_path, expect=ENVIRONMENT, PYTHONPATH=path(site))
    assert "cannot import here_alone" in printed
    assert "installed on every node" in printed
    assert "Traceback" not in printed
