"""What workers computed for their shares of some rows, brought together."""

import torch
from torch import Tensor

from xfm.training.group import Group


def all_gather_rows(group: Group, own: Tensor, total: int) -> Tensor:
    """Results of all rows in their order, where worker r computed rows r, r + world, ...

    Args:
        group: who shares the rows; every worker makes this call.
        own: (M, ...) of this worker's rows; M is 0 where there are fewer rows than workers.
        total: N.

    Returns:
        (N, ...), the same on every worker, for any number of workers.
    """
    places = torch.cat([torch.arange(total)[rank :: group.world] for rank in range(group.world)])
    together: Tensor = group.gather(own)
    return together[torch.argsort(places).to(own.device)]
