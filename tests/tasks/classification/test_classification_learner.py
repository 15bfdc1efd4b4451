"""What a step of classification computes, against the package `transformers` and by laws, on tiny encoders."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch.nn import functional
from transformers import AutoModelForSequenceClassification

from tests.rounding import UNIT, assert_same_but_rounding
from tests.tasks.classification.sentiment import Memory, learner, memory, tokenised, worker
from tests.text_examples import NAMES, sentences, write_encoder
from xfm.core.parts import TEST, TRAIN, VALIDATION
from xfm.core.schema import INPUT_IDS
from xfm.core.tokenizer import Tokens
from xfm.judging.labelled import SplitWithContent
from xfm.models.headed import freeze_unreached, put_head
from xfm.models.hf_text.config import HFText
from xfm.models.scgpt.fresh import FreshScGPT
from xfm.models.scgpt.settings import Architecture
from xfm.tasks.classification.settings import Classification
from xfm.training.group import Group
from xfm.training.settings import Settings
from xfm.training.trainer import Trainer

NO_DROPOUT = Classification(dropout=0.0, network_dropout=0.0)
SETTINGS = Settings(
    steps=40, batch_size=16, lr=3e-3, warmup=0, schedule="constant", weight_decay=0.01, clip=1.0, log_every=4,
    checkpoint_every=4, max_seconds=None, seed=0, watch="validation_f1", patience=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("classification") / "distilbert", "distilbert")


def step_loss(of, step=0):
    """Mean loss of a step's batch, with its gradient added."""
    examples = of.examples(step)
    counts = torch.tensor(of.counts(examples, step), dtype=torch.float64)
    return (of.backward(examples, counts, step) / counts).item()


def gradients(of):
    return torch.cat([p.grad.flatten() for p in of.network.parameters() if p.grad is not None])


def test_the_first_loss_and_gradient_are_those_of_transformers(encoder):
    """The same weights in AutoModelForSequenceClassification, padded as that package pads, one pass."""
    ours = learner(encoder, NO_DROPOUT.model_copy(update={"head": "mlp"}), batch_tokens=100)
    reference = AutoModelForSequenceClassification.from_pretrained(
        encoder, num_labels=2, dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0
    )
    head = ours.network.head
    reference.pre_classifier.load_state_dict(head.pre_classifier.state_dict())
    reference.classifier.load_state_dict(head.classifier.state_dict())
    _, parts, numbers = ours.order.batch(0)
    table = ours.rows.take(parts, numbers)
    ids = [torch.tensor(row) for row in table[INPUT_IDS].to_pylist()]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(row)) for row in ids], batch_first=True).long()
    codes = torch.tensor([NAMES.index(name) for name in table["label"].to_pylist()])
    loss = reference.train()(input_ids=padded, attention_mask=mask, labels=codes).loss
    loss.backward()
    ours.network.train()
    assert len(ours.examples(0)) > 1, "the batch is cut into passes"
    assert step_loss(ours) == pytest.approx(loss.item(), abs=1e-6)
    theirs = dict(reference.named_parameters())
    largest = max(parameter.grad.abs().max() for parameter in theirs.values() if parameter.grad is not None)
    for name, parameter in ours.network.named_parameters():
        there = name.replace("backbone.network.", "distilbert.").replace("head.", "")
        # Of the largest gradient of all: that of a key's bias is 0 but for the rounding of such numbers.
        torch.testing.assert_close(parameter.grad, theirs[there].grad, rtol=0, atol=256 * UNIT * float(largest))


def test_two_workers_add_up_to_the_loss_and_gradient_of_one(encoder):
    alone = learner(encoder, NO_DROPOUT)
    loss = step_loss(alone, 1)
    parts, losses = [], []
    for rank in range(2):
        one = learner(encoder, NO_DROPOUT, group=worker(rank, 2))
        losses.append(one.backward(one.examples(1), torch.tensor([16.0]), 1).item())
        parts.append(gradients(one))
    assert sum(losses) / 16 == pytest.approx(loss, abs=1e-6)
    assert_same_but_rounding(parts[0] + parts[1], gradients(alone), 256)


class Together(Group):
    """Workers in threads."""

    def __init__(self, rank, world, meeting, board):
        self.rank, self.world, self.meeting, self.board = rank, world, meeting, board

    def _all(self, values):
        self.board[self.rank] = values.clone()
        self.meeting.wait()
        everyone = [each.clone() for each in self.board]
        self.meeting.wait()
        return everyone

    def sum(self, values):
        return torch.stack(self._all(values)).sum(0)

    def gather(self, values):
        return torch.cat(self._all(values.detach()))


def test_two_workers_train_and_score_as_one_does(encoder):
    """Training as a whole: the same validation curve and the same logits, up to rounding."""
    settings = replace(SETTINGS, steps=8, patience=None, watch="-validation_loss", lr=1e-3)
    alone = Trainer(learner(encoder, NO_DROPOUT), settings).run(lambda: None)
    meeting, board, found = threading.Barrier(2, timeout=60), [None, None], {}

    def work(rank):
        group = Together(rank, 2, meeting, board)
        found[rank] = Trainer(learner(encoder, NO_DROPOUT, group=group), settings, group=group).run(lambda: None)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("validation_loss", "validation_f1", "loss"):
        curves = [[record[name] for record in run.history if name in record] for run in (alone, found[0])]
        np.testing.assert_allclose(curves[0], curves[1], atol=1e-4)
    for part in ("validation", "test"):
        assert np.array_equal(found[0].outcome[part], found[1].outcome[part])
        np.testing.assert_allclose(found[0].outcome[part], alone.outcome[part], atol=1e-3)


def test_rows_without_a_class_count_for_nothing(encoder):
    config = HFText(checkpoint=str(encoder))
    texts, labels = sentences(20)
    names = [None if i % 3 == 0 else NAMES[label] for i, label in enumerate(labels)]
    kept = [i for i, name in enumerate(names) if name is not None]
    everything = Memory([SplitWithContent(0, 0.0)(tokenised(config, texts, names))])
    only = Memory([SplitWithContent(0, 0.0)(tokenised(config, [texts[i] for i in kept], [names[i] for i in kept]))])
    losses = [
        step_loss(learner(encoder, NO_DROPOUT, rows=rows, batch_size=size))
        for rows, size in ((everything, 20), (only, len(kept)))
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_validation_scores_are_those_of_scikit_learn(encoder):
    of = learner(encoder, NO_DROPOUT)
    record = of.validate(0)
    numbers, rows = of.parts.everything(VALIDATION)
    table = of.rows.take(numbers, rows)
    truth = np.array([NAMES.index(name) for name in table["label"].to_pylist()])
    of.network.eval()
    with torch.inference_mode():
        logits = torch.cat([of.network(of.tokenizer.collate(table.slice(i, 1))) for i in range(table.num_rows)])
    guess = logits.argmax(1).numpy()
    assert record["validation_loss"] == pytest.approx(
        functional.cross_entropy(logits, torch.tensor(truth)).item(), abs=1e-5
    )
    assert record["validation_accuracy"] == pytest.approx(metrics.accuracy_score(truth, guess))
    assert record["validation_f1"] == pytest.approx(metrics.f1_score(truth, guess, average="macro", zero_division=0))
    assert record["validation_balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(truth, guess))
    assert record["validation_precision"] == pytest.approx(
        metrics.precision_score(truth, guess, average="macro", zero_division=0)
    )


def test_a_file_sorted_by_class_is_learned_and_test_rows_are_read_at_the_end_alone(encoder):
    of = learner(encoder, Classification())
    test = set(zip(*(each.tolist() for each in of.parts.everything(TEST)), strict=True))
    training = set(zip(*(each.tolist() for each in of.parts.everything(TRAIN)), strict=True))
    trainer = Trainer(of, SETTINGS)
    seen = []
    trained = trainer.run(lambda: seen.append(test & of.rows.taken))
    assert seen
    assert not any(seen), "no test row before the last step"
    assert test <= of.rows.taken
    assert training & of.rows.taken
    best = max(record["validation_f1"] for record in trained.history if "validation_f1" in record)
    assert best > 0.9
    numbers, rows = of.parts.everything(TEST)
    truth = [NAMES.index(name) for name in of.rows.take(numbers, rows)["label"].to_pylist()]
    assert (trained.outcome["test"].argmax(1) == truth).mean() > 0.9


class Scripted:
    """A learner whose validation scores are given, and whose weight is the number of the step."""

    names = ("loss",)
    steps_per_epoch = 2

    def __init__(self, scores):
        self.network = torch.nn.Linear(1, 1, bias=False)
        self.scores = list(scores)

    def examples(self, step):
        return None

    def counts(self, examples, step):
        return [1.0]

    def backward(self, examples, counts, step):
        self.network.weight.grad = torch.ones_like(self.network.weight)
        return torch.zeros(1, dtype=torch.float64)

    def validate(self, step):
        return {"validation_f1": self.scores[step // 2 - 1]}

    def outcome(self, step):
        return {"weight": self.network.weight.item(), "step": step}


def test_training_ends_after_three_validations_without_a_better_one_and_keeps_the_best():
    """By hand: .5 .7 .6 .7 .69 → the second is the best, a tie is not better, the fifth is the third in vain."""
    of = Scripted([0.5, 0.7, 0.6, 0.7, 0.69, 0.9])
    weights = {}
    trainer = Trainer(of, replace(SETTINGS, steps=12, checkpoint_every=2, weight_decay=0.0))
    trained = trainer.run(lambda: weights.setdefault(trainer.progress.step, of.network.weight.item()))
    assert trained.steps == 10
    assert trained.is_stopped
    assert trained.best_step == 4
    assert trained.outcome == {"weight": weights[4], "step": 4}
    assert weights[4] != weights[10]


@pytest.mark.parametrize(
    ("mode", "changed"),
    [
        ("head", {"head"}),
        ("last_n", {"head", "backbone.network.transformer.layer.1"}),
        (
            "full",
            {
                "head",
                "backbone.network.embeddings",
                "backbone.network.transformer.layer.0",
                "backbone.network.transformer.layer.1",
            },
        ),
    ],
)
def test_each_mode_changes_what_it_says(encoder, mode, changed):
    of = learner(encoder, Classification(mode=mode, last_n=1))
    before = {name: tensor.clone() for name, tensor in of.network.state_dict().items()}
    trained = Trainer(of, replace(SETTINGS, steps=2, patience=None, watch="")).run(lambda: None)
    moved = {name for name, tensor in of.network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {next(each for each in changed if name.startswith(each)) for name in moved} == changed
    assert set(trained.weights) == {name for name, p in of.network.named_parameters() if p.requires_grad}


def test_low_rank_updates_begin_as_the_pretrained_network_and_move(encoder):
    full, low = (learner(encoder, NO_DROPOUT.model_copy(update={"mode": mode, "rank": 2})) for mode in ("full", "lora"))
    assert torch.equal(full.logits(VALIDATION)[0], low.logits(VALIDATION)[0])
    trained = Trainer(low, replace(SETTINGS, steps=2, patience=None, watch="")).run(lambda: None)
    assert {name.split(".")[-3] for name in trained.weights if "lora" in name} == {"lora_A", "lora_B"}
    assert sum("lora" in name for name in trained.weights) == 12
    assert not torch.equal(full.logits(VALIDATION)[0], low.logits(VALIDATION)[0])


def test_what_is_frozen_drops_nothing(encoder):
    of = learner(encoder, Classification(mode="head", dropout=0.0))
    tokens = of.examples(0)[0].tokens
    of.network.train()
    assert torch.equal(of.network(tokens), of.network(tokens))
    of = learner(encoder, Classification(mode="full", dropout=0.0))
    of.network.train()
    assert not torch.equal(of.network(tokens), of.network(tokens))


def test_decoders_that_no_logit_depends_on_are_left_alone():
    """scGPT brings an expression decoder: weight decay would shrink it."""
    architecture = Architecture(
        n_tokens=6, n_layers=1, n_heads=2, dim=8, ffn=8, n_bins=11, max_length=64, mvc="inner product"
    )
    recipe = FreshScGPT(tokens=("A", "B", "C", "<pad>", "<cls>", "<eoc>"), architecture=architecture)
    network = put_head(recipe.build("cpu"), Classification(), 3, 0)
    present = torch.ones(1, 3, dtype=torch.bool)
    left = freeze_unreached(network, Tokens(torch.tensor([[4, 0, 1]]), torch.ones(1, 3), present, present))
    assert left
    assert all("decoder" in name for name in left)
    assert not any(p.requires_grad for name, p in network.named_parameters() if "decoder" in name)


def test_a_seed_is_a_run_and_another_seed_another(encoder):
    runs = [
        Trainer(learner(encoder, Classification(), seed=seed), replace(SETTINGS, steps=4, seed=seed)).run(lambda: None)
        for seed in (1, 1, 2)
    ]
    same = [all(torch.equal(runs[0].weights[name], each.weights[name]) for name in each.weights) for each in runs]
    assert same == [True, True, False]


def test_memory_of_the_example_is_split_and_sorted_by_class(encoder):
    rows = memory(HFText(checkpoint=str(encoder)))
    assert [set(table["label"].to_pylist()) for table in rows.tables] == [{"pos"}, {"neg"}]
    assert all(sum(rows.parts().count(part)) > 10 for part in (TRAIN, VALIDATION, TEST))
