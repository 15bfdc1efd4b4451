"""Every preset is understood by its job, whether or not the Hub can be reached."""

import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, load_job
from xfm.engine.settings import parse

PRESETS = sorted((REPOSITORY / "jobs" / "presets").glob("*.yaml"))


def job_of(preset: Path) -> str:
    """The job of the command that the preset's first lines show."""
    command = r"^#.*\bpython jobs/(\w+)\.py --config jobs/presets/" + re.escape(preset.name)
    found = re.search(command, preset.read_text(), re.MULTILINE)
    assert found, f"{preset.name} does not show the command that runs it"
    return found[1]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.stem)
def test_a_preset_is_what_its_job_takes(preset, monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "jobs")  # a job may begin others
    job = job_of(preset)
    named = re.search(r"^    main\((\w+), run\b", (REPOSITORY / "jobs" / f"{job}.py").read_text(), re.MULTILINE)
    assert named
    config = getattr(load_job(job), named[1])
    made = parse(config, ["--config", str(preset), "--output", "unused"], {}, f"jobs/{job}.py")
    assert isinstance(made, config)
    assert made.output == "unused"


def test_both_places_of_the_reviews_can_be_replaced_by_folders():
    preset = REPOSITORY / "jobs" / "presets" / "rotten_tomatoes_svm.yaml"
    words = ["--config", str(preset), "--source.path", "/data", "--backbone.checkpoint", "/model"]
    made = parse(load_job("evaluate").EvaluateJob, words, {}, "jobs/evaluate.py")
    assert (made.source.path, made.backbone.checkpoint) == ("/data", "/model")
    assert made.source.label_names == ("neg", "pos")
    assert (made.choose_by, made.tasks, made.split) == ("svm", ("probe", "svm"), "split")
