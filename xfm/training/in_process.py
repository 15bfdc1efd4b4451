"""A training run in this very process, without Ray: one worker, the same checkpoints, the same numbers."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from xfm.training.group import Group
from xfm.training.learner import Recipe
from xfm.training.settings import Record, Settings, Trained
from xfm.training.state import load_training, save_training
from xfm.training.trainer import Trainer

PREFIX = "checkpoint-"


def train_here(
    recipe: Recipe,
    settings: Settings,
    folder: Path,
    *,
    on_record: Callable[[Record], None] = lambda _: None,
    on_checkpoint: Callable[[Record, Path], None] = lambda *_: None,
    device: str = "cpu",
) -> Trained:
    """Trains, or continues what `folder` holds, and keeps the last checkpoint there.

    Args:
        on_checkpoint: called after a checkpoint was written, with its record and its folder; what it raises ends
            training there, and another call continues.

    Raises:
        Refused: as `Recipe.build` and `Trainer.run`.
    """
    group = Group()
    trainer = Trainer(recipe.build(group, device), settings, group=group, device=device, note=on_record)
    if (last := _last(folder)) is not None:
        load_training(trainer, last)

    def save() -> None:
        record = trainer.progress.history[-1]
        on_checkpoint(record, _save(trainer, folder))

    return trainer.run(save)


def _last(folder: Path) -> Path | None:
    """The newest whole checkpoint."""
    return max(folder.glob(f"{PREFIX}*"), default=None)


def _save(trainer: Trainer, folder: Path) -> Path:
    """A new checkpoint under its step's name, and then the older ones away: a crash leaves one of them whole."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".checkpoint-", dir=folder))
    save_training(trainer, fresh)
    place = folder / f"{PREFIX}{trainer.progress.step:09d}"
    older = sorted(folder.glob(f"{PREFIX}*"))
    if place in older:
        shutil.rmtree(place)
    fresh.rename(place)
    for each in older:
        if each != place:
            shutil.rmtree(each)
    return place
