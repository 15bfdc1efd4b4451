"""Workers that train one model together, as far as a training loop must know of them."""

import torch
from torch import Tensor


class Group:
    """Alone: the group of one."""

    rank: int = 0
    world: int = 1

    def sum(self, values: Tensor) -> Tensor:
        """The values added up over all workers; every worker gets the result."""
        return values


class TorchGroup(Group):
    """The processes of `torch.distributed`, which must be initialised."""

    def __init__(self) -> None:
        self.rank = torch.distributed.get_rank()
        self.world = torch.distributed.get_world_size()

    def sum(self, values: Tensor) -> Tensor:
        """In place: `values` becomes the sum."""
        torch.distributed.all_reduce(values)
        return values
