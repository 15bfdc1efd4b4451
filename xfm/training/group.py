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

    def gather(self, values: Tensor) -> Tensor:
        """(n, ...) of each worker to (N, ...) of all, in the order of ranks; n may differ. Carries no gradient."""
        return values.detach()


class TorchGroup(Group):
    """The processes of `torch.distributed`, which must be initialised."""

    def __init__(self) -> None:
        self.rank = torch.distributed.get_rank()
        self.world = torch.distributed.get_world_size()

    def sum(self, values: Tensor) -> Tensor:
        """In place: `values` becomes the sum."""
        torch.distributed.all_reduce(values)
        return values

    def gather(self, values: Tensor) -> Tensor:
        """See `Group`; rows are padded to the longest worker's on the way."""
        values = values.detach()
        counts = torch.zeros(self.world, dtype=torch.int64, device=values.device)
        counts[self.rank] = len(values)
        counts = self.sum(counts)
        longest = int(counts.max())
        padded = values.new_zeros((longest, *values.shape[1:]))
        padded[: len(values)] = values
        gathered = [torch.empty_like(padded) for _ in range(self.world)]
        torch.distributed.all_gather(gathered, padded)
        return torch.cat([each[:count] for each, count in zip(gathered, counts.tolist(), strict=True)])


def all_gather_rows(group: Group, own: Tensor, total: int) -> Tensor:
    """Results of all rows in their order, where worker r computed rows r, r + world, ...

    Args:
        group: who shares the rows; every worker makes this call.
        own: (M, ...) of this worker's rows; M is 0 where there are fewer rows than workers.

    Returns:
        (N, ...), the same on every worker, for any number of workers.
    """
    places = torch.cat([torch.arange(total)[rank :: group.world] for rank in range(group.world)])
    together: Tensor = group.gather(own)
    return together[torch.argsort(places).to(own.device)]
