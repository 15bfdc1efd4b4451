"""What workers tell each other, over gloo on this machine."""

import subprocess
import sys
from pathlib import Path

import pytest

WORKER = """
import sys, torch
from xfm.training.group import TorchGroup
from xfm.training.group import all_gather_rows
rank, store = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
group = TorchGroup()
rows = torch.arange(3 - 2 * rank).float()[:, None].repeat(1, 2) + 10 * rank  # three rows, and one
assert group.gather(rows).tolist() == [[0, 0], [1, 1], [2, 2], [10, 10]], group.gather(rows)
assert group.sum(torch.tensor([1.0, float(rank)])).tolist() == [2.0, 1.0]
for total in range(4):  # rows 0, 2 are worker 0's, row 1 is worker 1's; a worker may have none
    own = torch.arange(total)[rank::2].float()
    assert all_gather_rows(group, own[:, None], total).flatten().tolist() == list(range(total)), total
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_rows_are_gathered_in_the_order_of_ranks_whatever_their_number(tmp_path: Path):
    command = [sys.executable, "-c", WORKER]
    workers = [subprocess.Popen([*command, str(rank), str(tmp_path / "store")]) for rank in range(2)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
