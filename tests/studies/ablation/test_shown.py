"""Columns that show settings of members: what stands in them, and which mistakes are named before anything runs."""

import pytest
from pydantic import ValidationError

from tests.conftest import REPOSITORY
from xfm.engine.settings import UsageError, parse, read_yaml
from xfm.studies.ablation.config import CompareJob, members_of
from xfm.studies.ablation.shown import shown_of

BACKBONE = {"kind": "hf_text", "checkpoint": "/start"}
MEMBERS = {
    "first": {"job": "finetune", "lr": 0.5, "task": {"label": "label", "mode": "head"}},
    "next": {
        "job": "finetune",
        "after": "first",
        "series": "s",
        "lr": 3e-4,
        "task": {"label": "label", "network_dropout": 0.25},
    },
    "raw": {"job": "evaluate", "labels": ["label"]},
}


def job(tmp_path, show, **more):
    settings = {"base": {"source": {"kind": "grammar", "n": 50}, "split": "split", "backbone": BACKBONE}}
    return CompareJob(output=str(tmp_path / "out"), **settings, **({"members": MEMBERS, "show": show} | more))


def shown(config):
    members = members_of(config)
    return {member.name: shown_of(config.show, member, members) for member in members}


def test_a_column_shows_a_field_of_the_member_or_of_the_one_it_starts_from(tmp_path):
    show = {"rate": "lr", "mode": "task.mode", "from": "after.task.mode", "seed": "seed", "within": "within"}
    assert shown(job(tmp_path, show)) == {
        "first": {"rate": "0.5", "mode": "head", "from": "-", "seed": "0", "within": "-"},
        "next": {"rate": "0.0003", "mode": "full", "from": "head", "seed": "0", "within": "-"},
        "raw": {"rate": "-", "mode": "-", "from": "-", "seed": "0", "within": "-"},
    }


def test_a_setting_may_be_shown_only_where_another_is_on(tmp_path):
    show = {"drop": {"setting": "task.network_dropout", "where": "task.network_dropout", "otherwise": "none"}}
    found = {name: words["drop"] for name, words in shown(job(tmp_path, show)).items()}
    assert found == {"first": "none", "next": "0.25", "raw": "-"}


@pytest.mark.parametrize(
    ("show", "more", "said"),
    [
        ({"a": "task.mod"}, {}, r"--show.a: task.mod is no setting of any member. Did you mean task.mode\?"),
        ({"a": "after.task.mods"}, {}, r"Did you mean after.task.mode\?"),
        ({"a": {"setting": "lr", "where": "spit"}}, {}, r"--show.a: spit is no setting .* Did you mean split\?"),
        ({"rate": "lr"}, {"curve": "rat"}, r"--curve rat: is no column of --show. Did you mean rate\?"),
        ({"mode": "task.mode"}, {"curve": "mode"}, "--curve mode: next shows 'full', and a curve is over numbers"),
    ],
)
def test_a_mistake_is_named_before_anything_runs(tmp_path, show, more, said):
    with pytest.raises(ValidationError, match=said):
        job(tmp_path, show, **more)


def test_the_presets_columns_say_what_each_row_is():
    preset = REPOSITORY / "jobs" / "presets" / "fusion_ablation.yaml"
    assert list(read_yaml(str(preset))["show"]) == ["alignment", "adversary", "sign", "lambda"]
    rows = shown(parse(CompareJob, ["--config", str(preset)], {}, "compare"))
    assert {name: tuple(words.values()) for name, words in rows.items()} == {
        "aligned": ("-", "-", "-", "-"),
        "aligned_adversary": ("alignment", "yes", "corrected", "1"),
        "aligned_reference": ("alignment", "yes", "reference", "1"),
        "aligned_plain": ("alignment", "no", "-", "0"),
        "unaligned_adversary": ("-", "yes", "corrected", "1"),
        "unaligned_reference": ("-", "yes", "reference", "1"),
        "unaligned_plain": ("-", "no", "-", "0"),
        **dict.fromkeys(("vanilla", "vanilla_given_sex", "gene_only", "text_only"), ("-", "no", "-", "0")),
        "raw": ("-", "-", "-", "-"),
    }


def test_settings_of_the_columns_are_judged_like_any_other(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("output: o\nshow: {a: {seting: lr}}\n")
    with pytest.raises(UsageError, match="--show"):
        parse(CompareJob, ["--config", str(file)], {}, "compare")
