"""Training in the process that asks for it, as one worker of Ray Train would: the same batches, steps and numbers.

Starting a group of workers takes seconds; where many small networks are trained (the members of a comparison), each
trains inside a plain Ray task instead. Checkpoints lie in OUTPUT/train/ and are not Ray Train's: an OUTPUT that one of
the two began is started over by the other, with the same result.
"""

import io
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from xfm.core.storage import Storage, below, open_storage
from xfm.training.learner import Recipe
from xfm.training.settings import Record, Settings, Trained

NAME = "train"  # the folder below OUTPUT
STATE = "state.tar"  # a bucket has no folders that could be renamed: there the checkpoint is one object


def train_alone(
    recipe: Recipe, settings: Settings, output: str, on_record: Callable[[Record], None], *, threads: int = 1
) -> Trained:
    """Trains, or continues what OUTPUT holds, on the CPU.

    Args:
        on_record: called with every record, those of an earlier attempt included.
        threads: of this process; with as many as a worker of Ray Train has, the numbers are its numbers.

    Raises:
        Refused: as `training.in_process.train_here`.
    """
    import torch

    from xfm.training.in_process import train_here

    torch.set_num_threads(threads)
    seen: set[float] = set()

    def once(record: Record) -> None:
        if record["step"] not in seen:
            seen.add(record["step"])
            on_record(record)

    with state_folder(below(output, NAME)) as (folder, keep):
        trained = train_here(recipe, settings, folder, on_record=once, on_checkpoint=lambda *_: keep())
    for record in trained.history:
        once(record)
    return trained


@contextmanager
def state_folder(uri: str) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A local folder for checkpoints, and what to call after each: a bucket gets it as one object."""
    storage = open_storage(uri)
    if storage.appends:
        storage.create()
        yield Path(storage.uri), lambda: None
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if (data := storage.read(STATE)) is not None:
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                archive.extractall(folder, filter="data")
        yield folder, lambda: _keep(storage, folder)


def _keep(storage: Storage, folder: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.add(folder, arcname=".")
    storage.write(STATE, data.getvalue())
