"""`ray job submit` of an embed, against a head that asks for a token."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.ray


def submit(cluster, words, **env):
    command = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", cluster.dashboard,
               "--working-dir", str(REPOSITORY), "--", sys.executable, "jobs/embed.py", *words]  # fmt: skip
    environ = {name: value for name, value in cluster.env.items() if name != "RAY_ADDRESS"} | env
    deadline = time.monotonic() + 120
    while True:
        done = subprocess.run(command, env=environ, text=True, capture_output=True, timeout=280, check=False)
        # The head answers before the agent that starts jobs is ready.
        if "No available agent" not in done.stderr or time.monotonic() > deadline:
            return done
        time.sleep(1)


@pytest.mark.slow
def test_a_submitted_embed_does_its_work_and_passes_on_its_exit_code(cluster, tiny_scgpt, tmp_path):
    words = ["--source.kind", "h5ad", "--source.path", str(tiny_scgpt / "cells.h5ad"), "--backbone.kind", "scgpt",
             "--backbone.checkpoint", str(tiny_scgpt / "checkpoint"), "--output", str(tmp_path / "out"),
             "--pools", "mean"]  # fmt: skip
    done = submit(cluster, words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    assert json.loads((tmp_path / "out" / "report.json").read_text())["numbers"]["rows"] == 64
    # The job's directory is temporary: its records must lie beside OUTPUT.
    assert (tmp_path / "mlflow.db").exists()


@pytest.mark.slow
def test_without_the_token_nothing_can_be_submitted(cluster, tmp_path):
    (tmp_path / "wrong").write_text("0" * 64)
    os.chmod(tmp_path / "wrong", 0o600)
    done = submit(cluster, ["--help"], RAY_AUTH_TOKEN_PATH=str(tmp_path / "wrong"))
    assert done.returncode != 0
    assert "auth" in (done.stdout + done.stderr).lower()
