"""Which members of a comparison count as finished, from what their jobs left behind; no cluster runs."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from tests.text_examples import write_encoder
from xfm.core.errors import Refused
from xfm.engine.learn import plan_learning
from xfm.engine.learn_config import FinetuneConfig, PretrainConfig
from xfm.engine.output import Output
from xfm.studies.ablation.finished import finished_of
from xfm.studies.ablation.plan import entries_of, plan_members
from xfm.studies.ablation.schedule import describe_members
from xfm.studies.evaluate.config import EvaluateJob
from xfm.studies.evaluate.source import EMBEDDINGS, embedding_recipe


@pytest.fixture
def jobs():
    return {"pretrain": PretrainConfig, "finetune": FinetuneConfig, "evaluate": EvaluateJob}


@pytest.fixture
def planned(jobs, tmp_path):
    write_encoder(tmp_path / "start", "distilbert")
    rows = [("text", "label", "split"), *((f"a b {n}", str(n % 2), "train") for n in range(8))]
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)

    def plan(members, **more):
        base = {
            "source": {"kind": "hub_text", "path": str(tmp_path / "rows.csv"), "obs": ["label", "split"]},
            "split": "split",
            "finetune": {"backbone": {"kind": "hf_text", "checkpoint": str(tmp_path / "start")},
                         "task": {"label": "label"}},
            "evaluate": {"labels": ["label"], "tasks": ["probe"],
                         "backbone": {"kind": "hf_text", "checkpoint": str(tmp_path / "start")}},
        } | more  # fmt: skip
        return plan_members(members, base, jobs, str(tmp_path / "out"), seed=0, seeds=1)

    return plan


CHAIN = {
    "full": {"job": "finetune"},
    "further": {"job": "finetune", "after": "full"},
    "last": {"job": "finetune", "after": "further", "title": "the last"},
}


def leave(entry, recipe, *names):
    """What a job that has ended leaves, as far as it says what was computed."""
    run = {"job": "some", "recipe": recipe, "settings": {}, "versions": {}}
    with Output("/".join((entry.config.output, *names)), run) as output:
        output.write_json("report.json", {})


def leave_chain(entries):
    for number, entry in enumerate(entries):
        leave(entry, plan_learning(entry.config).run["recipe"] | {"cells": "a", "split": "b", "noun": "rows"})
        write_encoder(f"{entry.config.output}/checkpoint", "distilbert", dim=16 * (number + 2))


def test_members_are_finished_whose_settings_data_and_weights_are_those_of_now(planned):
    members = planned(CHAIN)
    entries = entries_of(members)
    assert finished_of(entries) == set()
    leave_chain(entries[:2])
    assert finished_of(entries) == {"full-seed-0", "further-seed-0"}
    assert "last: finetune, after further, 1 seeds, 1 left" in describe_members(members)


def test_a_changed_setting_is_refused(planned):
    leave_chain(entries_of(planned(CHAIN)))
    changed = CHAIN | {"full": {"job": "finetune", "lr": 0.5}}
    with pytest.raises(Refused, match=r"holds member full, seed 0 .* config.lr: 2e-05 -> 0.5\. Remove") as refused:
        finished_of(entries_of(planned(changed)))
    assert refused.value.code == "OTHER_RUN"


def test_numbers_from_an_older_checkpoint_are_refused(planned):
    entries = entries_of(planned(CHAIN))
    leave_chain(entries)
    write_encoder(f"{entries[0].config.output}/checkpoint", "distilbert", dim=64)
    with pytest.raises(Refused, match=r"holds member further, seed 0 .*weights\.") as refused:
        finished_of(entries)
    assert refused.value.code == "OTHER_RUN"


def test_what_started_from_a_member_that_is_to_be_made_anew_is_named(planned):
    entries = entries_of(planned(CHAIN))
    leave_chain(entries)
    shutil.rmtree(entries[0].config.output)
    with pytest.raises(Refused, match=r"made anew \(full, seed 0; further, seed 0\): further, seed 0 \(/.*/further/seed"
                                      r"-0\); last, seed 0 \(/") as refused:  # fmt: skip
        finished_of(entries)
    assert refused.value.code == "OTHER_RUN"
    for entry in entries[1:]:
        shutil.rmtree(entry.config.output)
    assert finished_of(entries) == set()


def test_numbers_from_other_data_are_refused(planned, tmp_path):
    entries = entries_of(planned(CHAIN))
    leave_chain(entries)
    with (tmp_path / "rows.csv").open("a") as file:
        file.write("c d,1,train\n")
    with pytest.raises(Refused, match=r"holds member full, seed 0 .*data\.") as refused:
        finished_of(entries)
    assert refused.value.code == "OTHER_RUN"
    (tmp_path / "rows.csv").unlink()
    with pytest.raises(Refused, match="member full, seed 0 is finished, and what it started from cannot be compared"):
        finished_of(entries)


def evaluated(entry, without=("test", "validation")):
    config = entry.config
    own = {name: value for name, value in config.recipe().items() if name not in without}
    leave(entry, embedding_recipe(config), EMBEDDINGS)
    leave(entry, {"job": "evaluate", "config": own, "data": {"rows": 8}})


def test_an_evaluation_of_data_that_come_split_is_finished_though_its_run_names_no_shares(planned):
    (entry,) = entries_of(planned({"raw": {"job": "evaluate"}}))
    evaluated(entry)
    assert "test" not in json.loads((Path(entry.config.output) / "run.json").read_text())["recipe"]["config"]
    assert finished_of([entry]) == {"raw-seed-0"}


@pytest.mark.parametrize(
    ("without", "changed", "said"),
    [
        (("test", "validation"), {"k": 3}, "config.k: 15 -> 3"),
        (("test", "validation"), {"leakage": "label"}, 'config.leakage: null -> "label"'),
        (("test",), {"validation": 0.3}, "config.validation: 0.2 -> 0.3"),  # the data named none: it was drawn
        (("test", "validation"), {"source": {"text_column": "label"}}, "config.source.text_column: null"),
        (("test", "validation"), {"backbone": {"max_length": 7}}, "config.backbone.max_length"),
    ],
)
def test_another_evaluation_is_refused(planned, without, changed, said):
    (entry,) = entries_of(planned({"raw": {"job": "evaluate"}}))
    evaluated(entry, without)
    with pytest.raises(Refused, match=said) as refused:
        finished_of(entries_of(planned({"raw": {"job": "evaluate", **changed}})))
    assert refused.value.code == "OTHER_RUN"
