"""What a step of a regression computes, and that it learns what decides the number."""

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score

from tests.tasks.classification.sentiment import worker
from tests.tasks.regression.ages import learner, memory, target_rows
from tests.text_examples import write_encoder
from xfm.core.parts import TEST, TRAIN, VALIDATION
from xfm.models.hf_text.config import HFText
from xfm.tasks.regression.rows import predicted
from xfm.tasks.regression.settings import Regression
from xfm.training.settings import Settings
from xfm.training.trainer import Trainer

NO_DROPOUT = Regression(dropout=0.0, network_dropout=0.0, pool="mean")
SETTINGS = Settings(
    steps=48, batch_size=16, lr=3e-3, warmup=0, schedule="constant", weight_decay=0.0, clip=1.0, log_every=4,
    checkpoint_every=8, max_seconds=None, seed=0, watch="validation_r2", patience=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("regression") / "distilbert", "distilbert")


@pytest.fixture(scope="module")
def config(encoder):
    return HFText(checkpoint=str(encoder))


def table_of(rows, part):
    return rows.take(*rows.parts().everything(part))


def truth(rows, part):
    return table_of(rows, part)["label"].to_numpy()


def by_row(of, table):
    """One row at a time, without padding."""
    of.network.eval()
    with torch.inference_mode():
        outputs = [of.network(of.tokenizer.collate(table.slice(i, 1)))[0, 0] for i in range(table.num_rows)]
    return torch.stack(outputs).double().numpy()


def step_loss(of, step=0):
    examples = of.examples(step)
    counts = torch.tensor(of.counts(examples, step), dtype=torch.float64)
    return (of.backward(examples, counts, step) / counts).item()


def gradients(of):
    return torch.cat([p.grad.flatten() for p in of.network.parameters() if p.grad is not None])


def test_the_first_loss_is_the_mean_squared_error_of_standardised_numbers(encoder, config):
    rows = memory(config)
    of = learner(encoder, NO_DROPOUT, rows)
    training = truth(rows, TRAIN)
    _, parts, numbers = of.order.batch(0)
    table = rows.take(parts, numbers)
    standardised = (table["label"].to_numpy() - training.mean()) / training.std()
    expected = np.mean((by_row(of, table) - standardised) ** 2)
    assert len(of.examples(0)) > 1, "the batch is cut into passes"
    # float32: rows that are padded add up in another order.
    assert step_loss(of) == pytest.approx(expected, rel=1e-5)


def test_two_workers_add_up_to_the_loss_and_gradient_of_one(encoder, config):
    rows = memory(config)
    alone = learner(encoder, NO_DROPOUT, rows)
    loss, losses, shares = step_loss(alone, 1), [], []
    for rank in range(2):
        one = learner(encoder, NO_DROPOUT, rows, group=worker(rank, 2))
        losses.append(one.backward(one.examples(1), torch.tensor([16.0]), 1).item())
        shares.append(gradients(one))
    assert sum(losses) / 16 == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(shares[0] + shares[1], gradients(alone), rtol=1e-4, atol=1e-6)


def test_rows_without_a_number_count_for_nothing(encoder, config):
    """A batch of all training rows, some of them without a number, has the loss of the others."""
    rows = memory(config, missing=60)
    of = learner(encoder, NO_DROPOUT, rows)
    of.order.batch_size = sum(rows.parts().count(TRAIN))
    table = table_of(rows, TRAIN)
    held = table.filter(table["label"].is_valid())
    values = held["label"].to_numpy()
    expected = np.mean((by_row(of, held) - (values - values.mean()) / values.std()) ** 2)
    assert of.counts(of.examples(0), 0) == [held.num_rows]
    assert held.num_rows < table.num_rows
    assert step_loss(of) == pytest.approx(expected, rel=1e-5)


def test_validation_scores_are_those_of_scikit_learn_in_the_unit_of_the_column(encoder, config):
    rows = memory(config)
    of, training, expected = learner(encoder, NO_DROPOUT, rows), truth(rows, TRAIN), truth(rows, VALIDATION)
    own = training.mean() + training.std() * by_row(of, table_of(rows, VALIDATION))
    record = of.validate(0)
    assert set(record) == {f"validation_{name}" for name in Regression.watchable}
    assert record["validation_r2"] == pytest.approx(r2_score(expected, own), abs=1e-5)
    assert record["validation_mae"] == pytest.approx(mean_absolute_error(expected, own), rel=1e-5)
    assert record["validation_loss"] == pytest.approx(np.mean((expected - own) ** 2) / training.var(), rel=1e-5)


def test_what_decides_the_number_is_learned_and_test_rows_are_read_at_the_end_alone(encoder, config):
    """The tone of a text explains 25 / 26 of the variance."""
    rows = memory(config)
    of = learner(encoder, NO_DROPOUT, rows)
    test = set(zip(*(each.tolist() for each in rows.parts().everything(TEST)), strict=True))
    seen = []
    trained = Trainer(of, SETTINGS).run(lambda: seen.append(test & rows.taken))
    assert seen
    assert not any(seen), "no test row before the last step"
    assert test <= rows.taken
    found = predicted(trained.outcome, target_rows(rows), TEST)
    assert 0.8 < r2_score(truth(rows, TEST), found) < 1
