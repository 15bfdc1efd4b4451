"""Seven colours as classes: pictures on disk, and tables of guesses as the actors of a zero-shot job write them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from tests.clip_examples import encoded

NAMES = ("black", "blue", "green", "grey", "light_yellow", "red", "white")
RGB = ((5, 5, 5), (20, 30, 230), (20, 200, 40), (120, 120, 120), (250, 240, 140), (230, 20, 20), (250, 250, 250))
EACH = 6
CUT_OFF = "test/red/3.png"


def colour_picture(name: str, number: int) -> Image.Image:
    rng = np.random.default_rng([NAMES.index(name), number])
    size = tuple(int(edge) for edge in rng.integers(20, 60, 2))
    pixels = np.array(RGB[NAMES.index(name)]) + rng.normal(0, 20, (*size, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_colours(folder: Path) -> Path:
    """SPLIT/CLASS/*.png, the first of each class in train; one picture of the test is cut off, as happens."""
    for name in NAMES:
        for number in range(EACH):
            place = folder / ("train" if number == 0 else "test") / name / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            data = encoded(colour_picture(name, number))
            place.write_bytes(data[: len(data) // 2] if str(place.relative_to(folder)) == CUT_OFF else data)
    return folder


def guesses_part(
    labels: list[str], right: dict[str, float], *, seed: int = 0, classes: tuple[str, ...] = NAMES, **obs: list[str]
) -> pa.Table:
    """Rows whose guesses are right with a probability by column, e.g. {"lens_l01": .9}, else at random."""
    rng = np.random.default_rng(seed)
    n, k = len(labels), len(classes)
    truth = np.array([classes.index(label) for label in labels])
    columns = {"row_id": [f"row-{i}" for i in range(n)], "label": labels} | obs
    table = pa.table(columns).append_column("learned_scale", pa.array([20.0] * n, pa.float32()))
    for name, share in right.items():
        order = np.argsort(rng.random((n, k)), axis=1).astype(np.int32)
        for row in np.flatnonzero(rng.random(n) < share):
            order[row] = [truth[row], *(c for c in order[row] if c != truth[row])]
        top = order[:, : min(5, k)]
        table = table.append_column(
            f"{name}_classes", pa.FixedSizeListArray.from_arrays(pa.array(top.ravel()), top.shape[1])
        )
        table = table.append_column(f"{name}_confidence", pa.array(rng.uniform(0.5, 1, n), pa.float32()))
    return table
