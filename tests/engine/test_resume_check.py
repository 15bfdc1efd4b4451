"""Whether an OUTPUT is another run's is known before anything is computed."""

import json
from pathlib import Path

import pytest

from xfm.core.errors import Refused
from xfm.engine.resume_check import check_output

RECIPE = {"job": "finetune", "config": {"lr": 1e-3}}


def output(folder: Path, recipe: dict[str, object]) -> str:
    (folder / "run.json").write_text(json.dumps({"recipe": recipe, "fingerprint": "f"}))
    return str(folder)


def test_what_only_the_stages_know_is_not_asked_for(tmp_path: Path):
    check_output(output(tmp_path, RECIPE | {"cells": "c", "split": "s"}), RECIPE)


def test_another_setting_is_named(tmp_path: Path):
    other = {"job": "finetune", "config": {"lr": 2e-3}}
    with pytest.raises(Refused, match=r"OTHER_RUN.*config\.lr: 0\.002 -> 0\.001"):
        check_output(output(tmp_path, other), RECIPE)


def test_an_output_that_is_not_there_or_holds_no_run_is_fine(tmp_path: Path):
    check_output(str(tmp_path / "new"), RECIPE)
    (tmp_path / "tokens").mkdir()
    check_output(str(tmp_path), RECIPE)
    assert not (tmp_path / "new").exists()


def test_what_another_program_wrote_is_refused(tmp_path: Path):
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(Refused, match="FOREIGN_OUTPUT"):
        check_output(str(tmp_path), RECIPE)
