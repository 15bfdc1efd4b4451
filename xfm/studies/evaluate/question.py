"""The question of an evaluation, settled once: which columns say what of a row, which rows are drawn, how they part."""

from dataclasses import dataclass
from typing import Self

from xfm.core.errors import Refused
from xfm.studies.evaluate.config import EvaluateJob


@dataclass(frozen=True, slots=True)
class Question:
    """What is read from representations, of which rows."""

    labels: tuple[str, ...]  # obs columns to read, each once; the first one decides the headline
    targets: tuple[str, ...]  # obs columns of numbers to predict, each once
    group: str | None  # column that must not stand on both sides of a split; None to draw row by row
    split: str | None  # column that says train, validation or test; None to draw the shares
    # batch, within, leakage, time: columns, as the settings of the same name; None where none was named
    batch: str | None
    within: str | None
    leakage: str | None
    time: str | None
    # column and value of the rows where pseudotime begins; None for those of the earliest time
    root: tuple[str, str] | None
    validation: float  # validation, test: shares of rows that are drawn
    test: float
    cells: int  # most rows that are judged
    min_class: int  # rows that a class needs
    k: int  # neighbours of the kNN classifier
    resamples: int  # of groups, for intervals
    seed: int  # keys every draw

    @classmethod
    def of(cls, config: EvaluateJob) -> Self:
        """The question that a job asks.

        Raises:
            Refused: BAD_ROOT, the start of pseudotime is no COLUMN=VALUE.
        """
        return cls(
            labels=tuple(dict.fromkeys(config.labels)), targets=tuple(dict.fromkeys(config.targets)),
            group=config.group, split=config.split, batch=config.batch,
            within=config.within, leakage=config.leakage, time=config.time, root=_root(config.root),
            validation=config.validation, test=config.test, cells=config.cells, min_class=config.min_class, k=config.k,
            resamples=config.bootstrap, seed=config.seed,
        )  # fmt: skip

    @property
    def columns(self) -> list[str]:
        """obs columns that are read, each once."""
        root = self.root[0] if self.root else None
        beside = [self.group, self.batch, self.time, root, self.split, self.within, self.leakage]
        wanted = [*self.labels, *self.targets, *beside]
        return list(dict.fromkeys(name for name in wanted if name))


def _root(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    name, equals, value = text.partition("=")
    if not equals:
        raise Refused("BAD_ROOT", f"--root {text}: expected COLUMN=VALUE, e.g. cell_type=progenitor")
    return name, value
