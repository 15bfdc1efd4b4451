"""Random weights as a user asks for them; no cluster is needed to find out what would run."""

import pytest

from tests.conftest import load_job
from xfm.engine.job import main


@pytest.fixture
def plan(tmp_path, tiny_scgpt, monkeypatch, capsys):
    """`embed --dry-run` in this process; returns what it printed."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # a job that got as far as Ray would end with 5
    monkeypatch.chdir(tmp_path)
    embed = load_job("embed")

    def start(*more, expect=0):
        words = ["--source.kind", "h5ad", "--source.path", str(tiny_scgpt / "cells.h5ad"), "--backbone.kind", "scgpt",
                 "--backbone.checkpoint", str(tiny_scgpt / "checkpoint"), "--output", "out", "--dry-run",
                 *more]  # fmt: skip
        with pytest.raises(SystemExit) as end:
            main(embed.EmbedJob, embed.run, "embed", words)
        printed = capsys.readouterr()
        assert end.value.code == expect, printed.err
        return printed.out + printed.err

    return start


def test_a_flag_asks_for_random_weights_and_the_plan_says_so(plan):
    assert "'weights': 'random', 'seed': 0" in plan("--backbone.random_weights", "0")
    assert "random" not in plan()


def test_a_seed_that_is_none_is_a_usage_error(plan):
    assert "--backbone.random_weights" in plan("--backbone.random_weights", "-1", expect=2)
