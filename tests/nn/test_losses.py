import math

import pytest
import torch

from xfm.nn.losses import masked_mse, squared_error

PREDICTED = torch.tensor([[1.0, 2.0, 3.0], [0.0, 5.0, 0.0]])
TARGET = torch.tensor([[1.0, 4.0, 0.0], [3.0, 5.0, 9.0]])
CHOSEN = torch.tensor([[True, True, False], [True, True, False]])


def test_squared_error_is_the_sum_over_chosen_positions_of_each_row():
    assert squared_error(PREDICTED, TARGET, CHOSEN).tolist() == [0 + 4, 9 + 0]


def test_masked_mse_divides_by_the_chosen_positions_of_the_whole_batch():
    assert masked_mse(PREDICTED, TARGET, CHOSEN).item() == pytest.approx(13 / 4)


def test_what_is_not_chosen_has_no_influence_on_loss_or_gradient():
    predicted = PREDICTED.clone()
    predicted[:, 2] = math.nan
    predicted.requires_grad_()
    loss = masked_mse(predicted, TARGET, CHOSEN)
    loss.backward()
    assert loss.item() == pytest.approx(13 / 4)
    assert predicted.grad[:, 2].tolist() == [0.0, 0.0]


def test_a_mean_over_nothing_is_refused():
    with pytest.raises(ValueError, match="no position is chosen"):
        masked_mse(PREDICTED, TARGET, torch.zeros_like(CHOSEN))
