"""Workers that refuse: all of them together, or one alone while the others wait for it in a sum."""

import subprocess
import sys

import pytest

WORKER = """
import sys, torch
from xfm.engine.train import all_come_here
rank, place, alone = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "alone"
torch.distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2)
if alone and rank == 1:
    try:
        torch.distributed.all_reduce(torch.zeros(1))
    except RuntimeError:
        pass  # the other one has gone
else:
    print(all_come_here(60.0 if not alone else 0.5))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("how", "said"), [("together", ["True", "True"]), ("alone", ["False", ""])])
def test_a_worker_that_refuses_knows_whether_the_others_do(how, said, tmp_path):
    words = [sys.executable, "-c", WORKER]
    workers = [
        subprocess.Popen([*words, str(rank), str(tmp_path / "meeting"), how], stdout=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    assert [worker.communicate(timeout=120)[0].strip() for worker in workers] == said
