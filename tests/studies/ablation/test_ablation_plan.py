"""Members of a comparison as settings: what each job gets, and which typos are found before anything runs."""

import pytest

from xfm.engine.learn_config import FinetuneConfig, PretrainConfig
from xfm.engine.settings import UsageError
from xfm.studies.ablation.plan import plan_members
from xfm.studies.evaluate.config import EvaluateJob

BASE = {
    "source": {"kind": "grammar", "n": 50},
    "split": "split",
    "finetune": {"backbone": {"kind": "hf_text", "checkpoint": "/start"}, "lr": 0.01, "task": {"label": "label"}},
    "pretrain": {"task": {"kind": "contrastive"}},
}


@pytest.fixture
def jobs():
    return {"pretrain": PretrainConfig, "finetune": FinetuneConfig, "evaluate": EvaluateJob}


@pytest.fixture
def plan(jobs, tmp_path):
    def start(members, base=BASE, **more):
        return plan_members(members, base, jobs, str(tmp_path / "out"), **({"seed": 0, "seeds": 2} | more))

    return start


def test_a_member_gets_what_all_share_then_its_jobs_settings_then_its_own(plan, tmp_path):
    first, second = plan({"a": {"job": "finetune", "lr": 0.5}, "b": {"job": "finetune", "title": "B", "seeds": 1}})
    assert (first.configs[0].lr, second.configs[0].lr) == (0.5, 0.01)
    assert first.configs[1].source.n == second.configs[0].source.n == 50
    assert first.configs[0].backbone.checkpoint == "/start"
    assert (sorted(first.configs), sorted(second.configs)) == ([0, 1], [0])
    assert [config.seed for config in first.configs.values()] == [0, 1]
    assert first.configs[1].output == str(tmp_path / "out/members/a/seed-1")
    assert ([row.title for row in first.rows], [row.title for row in second.rows]) == (["a"], ["B"])


def test_a_member_starts_from_the_checkpoint_of_the_same_seed_whatever_the_order(plan, tmp_path):
    late, early = plan({"late": {"job": "finetune", "after": "early"}, "early": {"job": "finetune"}}, seed=3)
    assert late.words.after == early.name == "early"
    for seed in (3, 4):
        assert late.configs[seed].backbone.checkpoint == str(tmp_path / f"out/members/early/seed-{seed}/checkpoint")
        assert early.configs[seed].backbone.checkpoint == "/start"


def test_an_evaluation_draws_nothing_and_runs_once(plan):
    (member,) = plan({"raw": {"job": "evaluate", "labels": ["label"], "backbone": BASE["finetune"]["backbone"]}})
    assert list(member.configs) == [0]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"a": {"job": "finetune", "lrr": 1}}, r"--members.a.lrr: is no setting of this job. Did you mean --lr\?"),
        ({"a": {"job": "finetune", "task": {"labl": "x"}}}, r"--members.a.task.labl: is no setting"),
        ({"a": {"job": "train"}}, r"--members.a.job: Input should be 'pretrain'"),
        ({"a": {"job": "finetune", "after": "c"}, "cc": {"job": "finetune"}}, r"c is no member. Did you mean cc\?"),
        (
            {"a": {"job": "finetune", "after": "b"}, "b": {"job": "finetune", "after": "a"}},
            "goes round in a circle: a after b after a",
        ),
        ({"a": {"job": "finetune", "after": "a"}}, "goes round in a circle"),
        ({"a": {"job": "pretrain", "after": "b"}, "b": {"job": "finetune"}}, "no checkpoint for a pretrain"),
        ({"a": {"job": "finetune", "seed": 3}}, "--members.a.seed: the comparison gives every member its own"),
        ({"a/b": {"job": "finetune"}}, "a name becomes a folder"),
        (
            {"a": {"job": "finetune", "after": "b", "backbone": {"checkpoint": "x"}}, "b": {"job": "finetune"}},
            "after says where backbone.checkpoint lies",
        ),
        (
            {"a": {"job": "finetune", "after": "b", "seeds": 2}, "b": {"job": "finetune", "seeds": 1}},
            "b has fewer seeds than 2",
        ),
        (
            {"a": {"job": "finetune", "after": "b", "backbone": "fusion"}, "b": {"job": "finetune"}},
            r"--members.a.backbone: settings with after, e.g. \{kind: fusion\}, not 'fusion'",
        ),
    ],
)
def test_a_mistake_is_named_before_anything_runs(plan, members, said):
    with pytest.raises(UsageError, match=said):
        plan(members)


def test_a_shared_setting_that_no_member_has_is_a_mistake_too(plan):
    with pytest.raises(UsageError, match=r"--base.splitt: is no setting of any member's job. Did you mean split\?"):
        plan({"a": {"job": "finetune"}}, BASE | {"splitt": "split"})
    # One that only some of the jobs have is none.
    assert plan({"a": {"job": "finetune"}}, BASE | {"patience": 1})[0].configs[0].patience == 1


@pytest.mark.parametrize("said", [3, "fast", ["lr"]])
def test_settings_of_a_job_that_are_none_are_named(plan, said):
    with pytest.raises(UsageError, match=r"--base.finetune: settings of finetune jobs, e.g. .*, not"):
        plan({"a": {"job": "finetune"}}, BASE | {"finetune": said})


def test_a_shared_backbone_that_is_none_is_named_where_a_checkpoint_is_to_be_filled_in(plan):
    own = {"job": "finetune", "backbone": BASE["finetune"]["backbone"]}
    with pytest.raises(UsageError, match=r"--members.a.backbone: settings with after"):
        plan({"a": {"job": "finetune", "after": "b"}, "b": own}, BASE | {"finetune": {"backbone": "x"}})
