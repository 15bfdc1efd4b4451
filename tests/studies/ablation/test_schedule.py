"""Members side by side: who begins when, and what one does before and while it works; no cluster runs."""

import pyarrow as pa
import pytest

from tests.picture_examples import fresh
from xfm.core.errors import EnvironmentProblem, Refused
from xfm.core.storage import open_storage
from xfm.engine.cluster import Place
from xfm.engine.learn import Prepared, task_of
from xfm.engine.learn_config import FinetuneConfig, PretrainConfig
from xfm.engine.stage import StageResult
from xfm.models.clip.writing import write_checkpoint
from xfm.models.fusion.config import Fusion
from xfm.models.fusion.text import HashedText
from xfm.studies.ablation import schedule, worker
from xfm.studies.ablation.plan import Entry, Member, MemberWords
from xfm.studies.ablation.schedule import Need, TokenStores, need_of, next_of
from xfm.studies.ablation.worker import MemberTask, work_on
from xfm.tasks.adversarial import task as adversarial
from xfm.tasks.adversarial.task import AdversarialTask
from xfm.tasks.alignment import task as alignment
from xfm.tasks.alignment.task import AlignmentTask
from xfm.training.task import Task
from xfm.training.tokens import TokenParts


def entry(name, **settings):
    after = settings.pop("after", None)
    config = FinetuneConfig(
        source={"kind": "grammar", "n": 10}, backbone={"kind": "hf_text", "checkpoint": "/none"},
        task={"label": "label"}, output="/none", **settings,
    )  # fmt: skip
    return Entry(Member(name, MemberWords(job="finetune", after=after), {0: config}), 0)


def test_members_share_cpus_and_gpus():
    a, b, c, d = (entry(name) for name in "abcd")
    needs = {a.key: Need(1, 1.0), b.key: Need(1, 1.0), c.key: Need(1, 0.0), d.key: Need(3, 0.0)}
    have = Need(3, 1.0)
    assert next_of([a, b], set(), set(), needs, have) is a
    assert next_of([b, c], set(), {a.key}, needs, have) is c  # b would wait for the GPU
    assert next_of([b], set(), {a.key}, needs, have) is None
    assert next_of([d, b], set(), {c.key}, needs, have) is b  # d wants every CPU
    assert next_of([d], set(), set(), needs, have) is d
    tenths = {f"{name}-seed-0": Need(0, 0.1) for name in "abcd"}
    assert next_of([a], set(), {b.key, c.key, d.key}, tenths, Need(4, 0.1 + 0.1 + 0.1 + 0.1)) is a


def test_a_member_waits_for_the_one_that_it_starts_from():
    first, second = entry("first"), entry("second", after="first")
    needs = {first.key: Need(1, 0), second.key: Need(1, 0)}
    assert next_of([second, first], set(), set(), needs, Need(2, 0)) is first
    assert next_of([second], set(), {first.key}, needs, Need(2, 0)) is None
    assert next_of([second], {first.key}, set(), needs, Need(2, 0)) is second


def test_a_member_takes_what_its_workers_take(monkeypatch):
    monkeypatch.setattr(schedule, "place", lambda workers, gpus, threads: Place(workers or 4, threads, gpus))
    assert need_of(entry("a", workers=2, threads=3), Need(8, 0)) == Need(6, 0)
    assert need_of(entry("a", gpus=0.5, threads=2), Need(8, 2)) == Need(8, 2.0)


def test_a_member_that_does_not_fit_is_named(monkeypatch):
    def place(workers, gpus, threads):
        raise EnvironmentProblem("too few CPUs")

    monkeypatch.setattr(schedule, "place", place)
    with pytest.raises(EnvironmentProblem, match="member big, seed 0: too few CPUs"):
        need_of(entry("big", threads=64), Need(2, 0))


def test_a_member_waits_for_whoever_still_holds_any_of_its_outputs(monkeypatch, tmp_path):
    left = [Refused("LOCKED", "held"), Refused("LOCKED", "held"), None]

    def evaluate(work):
        if (problem := left.pop(0)) is not None:
            raise problem
        return 0

    monkeypatch.setattr(worker, "_evaluate", evaluate)
    monkeypatch.setattr(worker, "PAUSE_S", 0.0)
    work = MemberTask("evaluate", entry("a").config, None, str(tmp_path))
    assert work_on(work).is_finished
    assert left == []
    left += [Refused("NO_COLUMN", "none"), None]
    assert work_on(work).refused == ("NO_COLUMN", "none")
    left[:] = [Refused("LOCKED", "held"), None]
    monkeypatch.setattr(worker, "LOCKED_S", -1.0)
    assert work_on(work).refused == ("LOCKED", "held")


def test_a_folder_that_a_node_lacks_is_no_other_folder(tmp_path):
    end = work_on(MemberTask("finetune", entry("a").config, None, str(tmp_path / "none")))
    assert end.code == 5
    assert end.refused is not None
    assert end.refused[0] == "ENVIRONMENT"
    assert f"{tmp_path / 'none'}, in which the comparison was started, is not on node" in end.refused[1]


ATLAS = {"kind": "atlas", "n_cells": 40, "n_types": 4, "n_donors": 4, "dim": 16}
SIZES = {"hidden": 16, "heads": 2, "latents": 3}


def pretraining(**more):
    task = {"kind": "alignment"} | SIZES | more.pop("task", {})
    return PretrainConfig.model_validate({"source": ATLAS, "task": task, "split": "split"} | more)


def donors(**more):
    given = {"source": ATLAS, "split": "split", "backbone": {"kind": "fusion"} | SIZES, "task": {"kind": "adversarial"}}
    return FinetuneConfig.model_validate(given | more)


def digits(checkpoint, **more):
    given = {"source": {"kind": "digits", "renderings": 1}, "split": "split", "backbone": {"kind": "clip",
             "checkpoint": checkpoint}, "task": {"kind": "class_prompts", "label": "pair"}}  # fmt: skip
    return FinetuneConfig.model_validate(given | more)


@pytest.fixture
def stored(monkeypatch, tmp_path):
    """Where the rows of members go; nothing is tokenised."""
    made = []

    def prepare(config, plan, place):
        made.append(place.rpartition("/")[2])
        return Prepared(plan, TokenParts(place, (), ()), None, {}, StageResult())

    monkeypatch.setattr(schedule, "prepare", prepare)
    monkeypatch.setattr(Task, "share", lambda *_: None)
    monkeypatch.setattr(AlignmentTask, "share", lambda *_: None)
    monkeypatch.setattr(AdversarialTask, "share", lambda *_: None)

    def store(*configs):
        stores = TokenStores(str(tmp_path / "members"))
        found = [
            stores.prepared_for(config.model_copy(update={"output": str(tmp_path / str(number))}))
            for number, config in enumerate(configs)
        ]
        for each, config in zip(found, configs, strict=True):  # the rows may be another's, the plan is its own
            assert each.plan.run["recipe"]["config"] == config.recipe()
        return [each.parts.uri for each in found], made

    return store


def test_members_that_differ_in_training_seed_and_sizes_share_rows(stored):
    same = {"lr": 0.5, "epochs": 3, "seed": 1, "task": {"hidden": 32, "loss": "margin"}}
    places, made = stored(pretraining(output="a"), pretraining(output="b", **same))
    assert len(made) == len(set(places)) == 1
    bigger = {"kind": "fusion", "hidden": 32, "heads": 4}
    adversary = {"kind": "adversarial", "reversal": "reference", "lambda_adv": 1.0}
    places, made = stored(donors(output="a"), donors(output="b", backbone=bigger, task=adversary, seed=3))
    assert len(set(places)) == 1
    assert len(made) == 2  # in addition to that of pretraining


@pytest.mark.parametrize(
    "other", [{"split_seed": 1}, {"task": {"text_column": "donor_id"}}, {"group": "donor_id"}, {"validation": 0.3}]
)
def test_members_that_read_other_rows_do_not(stored, other):
    places, made = stored(pretraining(output="a"), pretraining(output="b", **other))
    assert len(made) == len(set(places)) == 2


def test_what_is_told_of_rows_is_made_for_each_label_and_number_of_resamples(stored):
    sex = {"kind": "adversarial", "label": "sex", "attribute": "donor_id"}
    places, made = stored(donors(output="a"), donors(output="b", bootstrap=7), donors(output="c", task=sex))
    assert len(made) == 3
    assert places[0] == places[1] != places[2]


def test_members_that_forget_on_other_rows_do_not_take_each_others(stored, tmp_path):
    write_checkpoint(tmp_path / "clip", fresh().build("cpu"), fresh())
    on = [{}, *({"forgetting": {"kind": "digits", "renderings": n}} for n in (2, 3, 2))]
    places, made = stored(*(digits(str(tmp_path / "clip"), output="o", **more) for more in on))
    assert len(made) == len(set(places)) == 3
    assert places[1] == places[3]


@pytest.mark.parametrize(("make", "module"), [(pretraining, alignment), (donors, adversarial)])
def test_words_are_encoded_once_for_all_members(monkeypatch, tmp_path, make, module):
    asked = []
    encode = HashedText.encode
    monkeypatch.setattr(HashedText, "encode", lambda self, labels: asked.append(list(labels)) or encode(self, labels))

    class Store:
        def __init__(self, parts):
            pass

        def column(self, name):
            assert name == "cell_type"
            return [pa.chunked_array([["B cell", None]]), pa.chunked_array([["T cell", "B cell"]])]

    monkeypatch.setattr(module, "TokenStore", Store)
    parts = TokenParts("/rows", ("a",), ((2, 1, 1),))
    for name in ("first", "second"):
        task = task_of(make(output=str(tmp_path / name)))
        task.share(parts, str(tmp_path / "members"), str(tmp_path / name))
    assert asked == [["B cell", "T cell"]]
    bank = Fusion(**SIZES).bank_of(["T cell", "B cell"], open_storage(str(tmp_path / "second")))
    assert len(asked) == 1
    assert set(bank.labels) == {"B cell", "T cell"}
