import math

import torch

from xfm.nn.losses import squared_error

PREDICTED = torch.tensor([[1.0, 2.0, 3.0], [0.0, 5.0, 0.0]])
TARGET = torch.tensor([[1.0, 4.0, 0.0], [3.0, 5.0, 9.0]])
CHOSEN = torch.tensor([[True, True, False], [True, True, False]])


def test_squared_error_is_the_sum_over_chosen_positions_of_each_row():
    assert squared_error(PREDICTED, TARGET, CHOSEN).tolist() == [0 + 4, 9 + 0]


def test_what_is_not_chosen_has_no_influence_on_loss_or_gradient():
    predicted = PREDICTED.clone()
    predicted[:, 2] = math.nan
    predicted.requires_grad_()
    loss = squared_error(predicted, TARGET, CHOSEN).sum()
    loss.backward()
    assert loss.item() == 4 + 9
    assert predicted.grad[:, 2].tolist() == [0.0, 0.0]
