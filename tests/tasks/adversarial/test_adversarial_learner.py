"""What a step against an adversary computes: signs by hand, sums over workers, and the faults of a public model."""

import threading
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional

from tests.rounding import UNIT, assert_same_but_rounding
from tests.tasks.adversarial.donors import SEXES, TINY, Effects, atlas, bank_of, columns_of, learner, memory, truth
from tests.tasks.classification.sentiment import worker
from xfm.core.parts import TEST, TRAIN, VALIDATION
from xfm.core.schema import PART
from xfm.models.fusion.label_embeddings import TextBank
from xfm.models.fusion.network import build_network
from xfm.models.fusion.sizes import FusionSizes
from xfm.tasks.adversarial.network import AdversarialClassifier, adversary_loss
from xfm.tasks.adversarial.settings import MISSING, MOST_LOSS, AdversarialClassification
from xfm.training.group import Group
from xfm.training.settings import Settings
from xfm.training.trainer import Trainer

NO_DROPOUT = AdversarialClassification(head_dropout=0.0, ramp=False, lambda_adv=0.7)
SETTINGS = Settings(
    steps=20, batch_size=32, lr=3e-3, warmup=0, schedule="constant", weight_decay=0.01, clip=1.0, log_every=5,
    checkpoint_every=5, max_seconds=None, seed=0, watch="validation_f1", patience=None,
)  # fmt: skip


@pytest.fixture(scope="module")
def cells():
    return atlas(Effects(donor=1.0, sex=1.0))


def backward(of, step=0):
    """Gradients of a step, by name."""
    examples = of.examples(step)
    counts = torch.tensor(of.counts(examples, step), dtype=torch.float64)
    losses = of.backward(examples, counts, step)
    return losses / counts, {n: p.grad.clone() for n, p in of.network.named_parameters() if p.grad is not None}


def by_hand(of, step=0):
    """Gradients of both mean losses, each alone, without any reversal."""
    cells, network = of.examples(step), of.network
    features = network.features(cells)
    main = functional.cross_entropy(network.classify(features, cells.attribute), cells.codes)
    known = cells.attribute != MISSING
    adversary = functional.binary_cross_entropy_with_logits(
        network.adversary(features)[known, 0], cells.attribute[known].float()
    )
    named = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    found = []
    for loss in (main, adversary):
        grads = torch.autograd.grad(loss, [p for _, p in named], retain_graph=True, allow_unused=True)
        found.append({n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named, grads, strict=True)})
    return float(main.detach()), float(adversary.detach()), *found


@pytest.mark.parametrize(("reversal", "sign"), [("corrected", 1.0), ("reference", -1.0)])
def test_the_doubled_sign_helps_the_adversary_and_the_corrected_one_does_not(cells, reversal, sign):
    """By hand: main - lambda * w * adversary before the reversal, + w * adversary behind it; the public model's
    subtraction turns both: its network descends the adversary's loss, and its adversary climbs it."""
    task = NO_DROPOUT.model_copy(update={"reversal": reversal, "adv_weight": 2.0})
    of = learner(cells, task)
    main, adversary, of_main, of_adversary = by_hand(of)
    losses, grads = backward(of)
    assert losses.tolist() == pytest.approx([main + sign * 2 * adversary, main, adversary], abs=1e-6)
    reached = 0
    for name, grad in grads.items():
        factor = 1.0 if name.startswith("adversary.") else -0.7
        reached += not name.startswith(("adversary.", "head.")) and bool(of_adversary[name].abs().max() > 1e-6)
        torch.testing.assert_close(
            grad, of_main[name] + sign * 2 * factor * of_adversary[name], rtol=1e-4, atol=1e-6, msg=name
        )
    assert reached > 10, "the adversary's gradient reaches the network below the head"


def test_the_reversal_grows_over_the_run_unless_it_is_constant():
    growing = AdversarialClassification(lambda_adv=0.5)
    assert growing.strength(0.0) == 0
    assert growing.strength(1.0) == pytest.approx(0.5, rel=1e-3)
    assert growing.model_copy(update={"ramp": False}).strength(0.0) == 0.5


def test_an_unknown_sex_is_masked_and_no_third_class(cells):
    """Rows without a known sex add nothing to the adversary's loss, and its mean is over the others."""
    logits, codes = torch.tensor([[2.0], [-1.0], [0.5]]), torch.tensor([1, MISSING, 0])
    found = adversary_loss(logits, codes)
    assert found.tolist() == pytest.approx([np.log1p(np.exp(-2.0)), 0.0, np.log1p(np.exp(0.5))])
    of = learner(atlas(Effects(), unknown=3), NO_DROPOUT)
    assert of.network.adversary[-1].out_features == 1
    examples = of.examples(0)
    known = int((examples.attribute != MISSING).sum())
    assert 0 < known < len(examples.codes)
    assert of.counts(examples, 0) == [32.0, 32.0, float(known)]
    losses, _ = backward(of)
    _, adversary, *_ = by_hand(learner(atlas(Effects(), unknown=3), NO_DROPOUT))
    assert losses[2].item() == pytest.approx(adversary, abs=1e-6)


def test_a_batch_without_a_known_sex_trains_the_donors_alone():
    of = learner(atlas(Effects(), unknown=6), NO_DROPOUT)
    losses, grads = backward(of)
    assert torch.isfinite(losses[1])
    assert all(not grad.any() for name, grad in grads.items() if name.startswith("adversary."))


def test_the_reference_loss_is_clipped_row_by_row():
    found = adversary_loss(torch.tensor([[50.0], [-1.0]]), torch.tensor([0, 0]), MOST_LOSS)
    assert found.tolist() == pytest.approx([10.0, np.log1p(np.exp(-1.0))])


def test_more_than_two_classes_of_an_attribute_take_cross_entropy():
    logits, codes = torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]]), torch.tensor([2, MISSING])
    total = np.log(np.exp(1) + 1 + np.exp(-1)) + 1
    assert adversary_loss(logits, codes).tolist() == pytest.approx([total, 0.0])


def test_two_workers_take_the_first_step_of_one():
    """Dropout off; unknown sexes are spread unevenly over the workers."""
    table = atlas(Effects(sex=1.0), unknown=2)
    losses, alone = backward(learner(table, NO_DROPOUT), 1)
    both = [learner(table, NO_DROPOUT, group=worker(rank, 2)) for rank in range(2)]
    examples = [one.examples(1) for one in both]
    each = [torch.tensor(one.counts(some, 1), dtype=torch.float64) for one, some in zip(both, examples, strict=True)]
    assert each[0][2] != each[1][2]
    counts = each[0] + each[1]
    summed = [one.backward(some, counts, 1) for one, some in zip(both, examples, strict=True)]
    assert_same_but_rounding((summed[0] + summed[1]) / counts, losses, 32)
    # Of the largest gradient of all: what cancels in a network are sums of that size.
    rounding = 256 * UNIT * max(float(gradient.abs().max()) for gradient in alone.values())
    for name, gradient in alone.items():
        found = sum(dict(one.network.named_parameters())[name].grad for one in both)
        torch.testing.assert_close(found, gradient, rtol=0, atol=rounding, msg=name)


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


def test_two_workers_say_of_all_rows_what_one_says(cells):
    """Logits, features and attention of the outcome, in the order of the store."""
    alone = learner(cells, NO_DROPOUT).outcome(0)
    meeting, board, found = threading.Barrier(2, timeout=60), [None, None], {}
    both = [learner(cells, NO_DROPOUT, group=Together(rank, 2, meeting, board)) for rank in range(2)]

    def work(rank):
        found[rank] = both[rank].outcome(0)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outcome in found.values():
        for name in ("validation", "test", "validation_features", "test_features"):
            np.testing.assert_allclose(outcome[name], alone[name], atol=1e-5)
        np.testing.assert_allclose(outcome["attention"]["mean"], alone["attention"]["mean"], atol=1e-6)
        assert outcome["attention"]["variation"] == pytest.approx(alone["attention"]["variation"], abs=1e-6)


def test_train_mode_is_restored_after_validation(cells):
    """The public model stays in evaluation mode after its first validation: dropout is off from then on."""
    of = learner(cells, AdversarialClassification(), TINY.model_copy(update={"dropout": 0.3}))
    of.network.train()
    of.validate(1)
    assert all(module.training for module in of.network.modules())
    of.network.eval()
    of.validate(1)
    assert not any(module.training for module in of.network.modules())


def test_train_mode_and_gradients_are_back_after_a_validation_that_failed(cells, monkeypatch):
    of = learner(cells, AdversarialClassification())
    of.network.train()

    def fails(*_):
        raise RuntimeError("planted")

    monkeypatch.setattr(of.network, "classify", fails)
    with pytest.raises(RuntimeError, match="planted") as kept:
        of.validate(1)
    assert kept.tb is not None  # frames, and what they suspended, are alive
    assert of.network.training
    assert not torch.is_inference_mode_enabled()


def test_dropout_is_off_while_scores_are_taken(cells):
    of = learner(cells, AdversarialClassification(head_dropout=0.5), TINY.model_copy(update={"dropout": 0.5}))
    of.network.train()
    torch.testing.assert_close(of.scored(VALIDATION).logits, of.scored(VALIDATION).logits, rtol=0, atol=0)


def test_no_test_row_is_read_before_the_outcome(cells):
    rows = memory(cells)
    of = learner(cells, AdversarialClassification(), rows=rows)
    of.outcome = lambda step: {}
    Trainer(of, SETTINGS).run(lambda: None)
    parts = {number: table[PART].to_numpy() for number, table in enumerate(rows.tables)}
    read = {int(parts[part][row]) for part, row in rows.taken}
    assert read == {TRAIN, VALIDATION}
    learner(cells, AdversarialClassification(), rows=rows).outcome(0)
    assert TEST in {int(parts[part][row]) for part, row in rows.taken}


def test_words_are_looked_up_and_never_encoded(cells, monkeypatch):
    """Rows hold words; the vectors of a bank are all that training sees of them."""
    import xfm.models.fusion.text as text

    for kind in (text.HashedText, text.BertText):
        monkeypatch.setattr(kind, "encode", lambda *_: pytest.fail("a text was encoded while training"), raising=False)
    of = learner(cells, NO_DROPOUT)
    Trainer(of, SETTINGS).run(lambda: None)
    table = memory(cells).tables[0].slice(0, 5)
    bank = bank_of(cells)
    seen = of.columns.cells(table, bank)
    expected = [bank.labels.index(word) for word in table["cell_type"].to_pylist()]
    assert seen.text.tolist() == expected
    torch.testing.assert_close(of.network._inputs(seen)[0], torch.from_numpy(bank.vectors[expected]))
    assert not any("text" in name.split(".") for name in of.network.state_dict())


def test_token_level_words_are_masked(cells):
    """Padding of a label's tokens changes nothing."""
    bank, table = bank_of(cells), memory(cells).tables[0].slice(0, 6)
    outputs = []
    for padding in (0.0, 9.0):
        tokens = np.stack([bank.vectors, bank.vectors * 0.5, np.full_like(bank.vectors, padding)], axis=1)
        mask = np.tile([True, True, False], (len(bank.labels), 1))
        longer = TextBank(bank.labels, tokens.astype(np.float32), mask, bank.encoder)
        network = AdversarialClassifier(build_network(TINY, 16, bank.dim, 0), longer, NO_DROPOUT, 6, 2, 16, 0).eval()
        outputs.append(network(columns_of(cells).cells(table, longer))[0])
    torch.testing.assert_close(outputs[0], outputs[1])


def test_heads_of_the_shared_space_are_frozen_and_kept(cells):
    """No donor depends on them: weight decay would shrink what alignment has learned."""
    of = learner(cells, NO_DROPOUT)
    before = of.network.network.project_gene.weight.clone()
    trained = Trainer(of, SETTINGS).run(lambda: None)
    assert not any("project_" in name for name in trained.weights)
    torch.testing.assert_close(of.network.network.project_gene.weight, before, rtol=0, atol=0)
    assert {"head.0.weight", "adversary.3.bias", "network.cross.norm_gene.weight"} <= set(trained.weights)


def test_loss_and_both_parts_are_recorded_and_donors_are_learned(cells):
    of = learner(cells, AdversarialClassification(head_dropout=0.0))
    history = Trainer(of, SETTINGS).run(lambda: None).history
    for record in history:
        assert record["loss"] == pytest.approx(record["main"] + record["adversary"], abs=1e-6)
    assert history[-1]["main"] < history[0]["main"]
    assert {"validation_f1", "validation_weighted_f1", "validation_leakage_auroc"} <= set(history[-1])
    assert history[-1]["validation_accuracy"] > 2 / 6
    plain = learner(cells, AdversarialClassification(adversary=False))
    record = Trainer(plain, SETTINGS).run(lambda: None).history[-1]
    assert plain.network.adversary is None
    assert "adversary" not in record
    assert "validation_leakage_auroc" in record


@pytest.mark.parametrize(("inputs", "width"), [("both", 28), ("gene", 16), ("text", 12)])
def test_a_concatenation_is_the_plain_classifier(cells, inputs, width):
    """[text; gene] as they are, through Linear - ReLU - Dropout - Linear."""
    task = NO_DROPOUT.model_copy(update={"adversary": False})
    of = learner(cells, task, FusionSizes(design="concat", inputs=inputs, hidden=8))
    named = [name for name, _ in of.network.named_parameters()]
    assert named == ["head.0.weight", "head.0.bias", "head.3.weight", "head.3.bias"]
    some = of.examples(0)
    text = of.network.text[some.text]
    x = {"both": torch.cat([text, some.gene], 1), "gene": some.gene, "text": text}[inputs]
    assert x.shape[1] == width
    one, *_, two = of.network.head
    torch.testing.assert_close(of.network(some)[0], two(torch.relu(one(x))))
    assert "attention" not in of.outcome(0)


def test_the_head_is_given_the_sex_only_where_asked(cells):
    """As the public model does: 0, 1, and 0.5 for unknown, beside the features."""
    task = NO_DROPOUT.model_copy(update={"attribute_in_head": True})
    network = learner(cells, task).network
    assert network.head[0].in_features == 33
    features = torch.zeros(3, 32)
    given = network.classify(features, torch.tensor([0, 1, MISSING]))
    first, *_, last = network.head
    by_hand = [last(torch.relu(first.bias + x * first.weight[:, -1])) for x in (0.0, 1.0, 0.5)]
    torch.testing.assert_close(given, torch.stack(by_hand))
    assert learner(cells, NO_DROPOUT).network.head[0].in_features == 32


def test_a_faster_adversary_begins_as_the_plain_one_and_takes_larger_steps(cells):
    """The same outputs at step 0; one step of Adam moves its weights `adversary_lr` times as far."""
    moved = {}
    for rate in (1.0, 5.0):
        of = learner(cells, NO_DROPOUT.model_copy(update={"adversary_lr": rate}))
        layer = of.network.adversary[0]
        before, logits = (layer.weight * rate).detach().clone(), of.network(of.examples(0))[1]
        Trainer(of, replace(SETTINGS, steps=1, weight_decay=0.0, clip=1e9, watch="")).run(lambda: None)
        moved[rate] = ((layer.weight * rate).detach() - before).abs().max().item(), logits
    torch.testing.assert_close(moved[1.0][1], moved[5.0][1])
    assert moved[5.0][0] == pytest.approx(5 * moved[1.0][0], rel=1e-2)


def test_the_outcome_is_in_the_order_of_the_store(cells):
    rows = memory(cells)
    of = learner(cells, NO_DROPOUT, rows=rows)
    found = of.outcome(0)
    ids = truth(rows, TEST, "row_id")
    assert found["test"].shape == (len(ids), 6)
    assert found["test_features"].shape == (len(ids), 32)
    some = of.scored(TEST)
    assert [of.columns.classes[code] for code in some.codes] == truth(rows, TEST, "donor_id").tolist()
    assert [SEXES[code] for code in some.attribute] == truth(rows, TEST, "sex").tolist()
    one = pa.concat_tables(rows.tables).filter(pa.compute.equal(pa.concat_tables(rows.tables)["row_id"], ids[7]))
    alone = of.network.eval()(of.columns.cells(one, of.bank))[0]
    np.testing.assert_allclose(found["test"][7], alone[0].detach(), atol=1e-5)


def test_attention_maps_are_distributions_over_the_whole_test_set(cells):
    found = learner(cells, NO_DROPOUT).outcome(0)
    attention = found["attention"]
    assert attention["cells"] == len(found["test"])
    np.testing.assert_allclose(attention["mean"].sum(1), 1, atol=1e-5)
    assert 0 < attention["entropy"] <= np.log(TINY.latents) + 1e-6
    assert attention["variation"] > 0
    assert len(attention["places"]) == len(attention["samples"][0]) == 3
