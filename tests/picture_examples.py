"""Plain squares and their colours as pictures with captions, in memory; a CLIP whose step takes milliseconds."""

import threading
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from xfm.core.schema import IMAGE, PART, ROW_ID
from xfm.models.clip.fresh import CLIPSizes, FreshCLIP
from xfm.training.group import Group
from xfm.training.tokens import TokenParts

COLOURS = {"red": (230, 40, 40), "green": (40, 200, 60), "blue": (60, 90, 240), "yellow": (235, 215, 40)}
SIZES = CLIPSizes(
    image_size=16, patch_size=8, image_width=16, image_layers=2, image_heads=2, text_width=16, text_layers=1,
    text_heads=2, text_length=8, projection_dim=8,
)  # fmt: skip


class Memory:
    """Parts in memory; inside a part training rows come first."""

    def __init__(self, tables: Sequence[pa.Table]) -> None:
        self.tables = list(tables)

    def take(self, parts: np.ndarray, rows: np.ndarray) -> pa.Table:
        return pa.concat_tables([self.tables[part].take(np.sort(rows[parts == part])) for part in np.unique(parts)])

    def column(self, name: str) -> list[pa.ChunkedArray]:
        return [table[name] for table in self.tables]

    def parts(self) -> TokenParts:
        counts = [np.bincount(table[PART].to_numpy(), minlength=4)[:3].tolist() for table in self.tables]
        return TokenParts("memory", tuple(f"part-{i}" for i in range(len(counts))), tuple(map(tuple, counts)))


def pictures(numbers: Sequence[int], parts: Sequence[int], name: str = "row") -> pa.Table:
    """Picture i has colour i % 4 and a little noise of its own."""
    words = list(COLOURS)
    own = [words[i % len(words)] for i in numbers]
    captions = [f"a {word} square" if i % 3 else f"the {word} one" for i, word in zip(numbers, own, strict=True)]
    return pa.table(
        {
            ROW_ID: [f"{name}{i}" for i in numbers],
            IMAGE: pa.array([_png(COLOURS[word], i) for i, word in zip(numbers, own, strict=True)], pa.large_binary()),
            "caption": captions,
            "colour": own,
            PART: pa.array(parts, pa.int8()),
        }
    )


def _png(colour: tuple[int, int, int], seed: int) -> bytes:
    noise = np.random.default_rng(seed).normal(0, 12, (16, 16, 3))
    sink = BytesIO()
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(sink, "PNG")
    return sink.getvalue()


def memory() -> Memory:
    """48 pictures in two parts: 30 to train on, 9 for validation, 9 to test."""
    return Memory(
        [pictures(range(24), [0] * 16 + [1] * 4 + [2] * 4), pictures(range(24, 48), [0] * 14 + [1] * 5 + [2] * 5)]
    )


def fresh(seed: int = 0) -> FreshCLIP:
    captions = [f"a {word} square" for word in COLOURS] + [f"the {word} one" for word in COLOURS]
    return FreshCLIP.from_captions(captions, SIZES, seed=seed, vocabulary_size=540)


BUILDING = threading.Lock()  # initial weights come from torch's one generator


class Together(Group):
    """Worker `rank` of several threads, which meet at every sum and gather."""

    def __init__(self, rank: int, world: int, meeting: threading.Barrier, table: list[Any]) -> None:
        self.rank, self.world, self.meeting, self.table = rank, world, meeting, table

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return torch.stack(self._exchange(values)).sum(dim=0)

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        return torch.cat(self._exchange(values.detach()))

    def _exchange(self, values: torch.Tensor) -> list[torch.Tensor]:
        self.table[self.rank] = values.clone()
        self.meeting.wait(60)
        found = list(self.table)
        self.meeting.wait(60)
        return found


def workers(world: int, work: Callable[[Group], Any]) -> list[Any]:
    """What each of so many workers comes to, all at once."""
    meeting, table, found = threading.Barrier(world), [None] * world, [None] * world
    problems: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            found[rank] = work(Together(rank, world, meeting, table))
        except Exception as problem:  # noqa: BLE001 - raised again where it is seen
            problems.append(problem)
            meeting.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    return found
