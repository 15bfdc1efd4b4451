"""Coloured digits: pictures with captions that need no download, and pairs of words that training never shows together.

The 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn (Alpaydin and Kaynak, UCI, 1998) are drawn in
five colours at 32 x 32 pixels, each a little turned, scaled and moved. Each digit lacks one colour in training: 10 of
the 50 pairs (colour, digit). Recognising them is zero-shot, since both words are known and their combination is new.
The domain `shifted` shows the same digits dark on light paper, turned by about 34 degrees, with noise.
"""

import hashlib
import io
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from xfm.core.random import U64, key64, mix, rng_for, uniform
from xfm.core.schema import IMAGE, ROW_ID
from xfm.sources.synthetic.rows import Made

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = {
    "red": (230, 40, 40), "green": (40, 200, 60), "blue": (60, 90, 240), "yellow": (235, 215, 40),
    "purple": (180, 60, 210),
}  # fmt: skip
TEMPLATES = ("a photo of a {}", "a picture of a {}", "an image of a {}", "a drawing of a {}", "this is a {}", "the {}")

TEST, VALIDATION = 597, 150  # of the 1,797 digits; a digit keeps its split in every colour, domain and seed
TURN, SCALE, SHIFT = 6.0, 0.06, 1.0  # at most: degrees, share, pixels of 32
SHIFTED_TURN, SHIFTED_NOISE = 34.0, 20.0  # degrees; standard deviation, of 255
COLUMNS: tuple[Literal["digit", "colour", "pair", "caption", "split"], ...]
COLUMNS = ("digit", "colour", "pair", "caption", "split")
GLYPH = 0.95  # side of an unscaled digit, as a share of the picture's


class Digits(Made):
    """Coloured handwritten digits with captions."""

    kind: Literal["digits"] = "digits"
    domain: Literal["plain", "shifted"] = "plain"
    """plain: bright on dark. shifted: dark on light, turned by about 34 degrees, with noise."""
    pairs: Literal["all", "seen", "held_out"] = "all"
    """Pairs of colour and digit: those of training, the 10 that never occur in training, or both."""
    renderings: PositiveInt = 1
    """Pictures of each digit in each colour, all turned, scaled and moved differently."""
    size: int = Field(32, ge=8)
    """Pixels along a side."""
    obs: tuple[Literal["digit", "colour", "pair", "caption", "split"], ...] = COLUMNS
    """Columns to carry along: the words `seven` and `red`, both as `red seven`, a caption, the split."""

    def identity(self) -> dict[str, Any]:
        """Digest of scikit-learn's digits."""
        glyphs, numbers = bundled_digits()
        data = np.ascontiguousarray(glyphs, "<f4").tobytes() + np.ascontiguousarray(numbers, "<i4").tobytes()
        return {"digits": f"sha256:{hashlib.sha256(data).hexdigest()}"}

    def _content(self) -> dict[str, pa.DataType]:
        return {IMAGE: pa.large_binary()}

    def _columns(self) -> Sequence[str]:
        return self.obs

    def _rows(self) -> NDArray[np.int64]:
        """Number of a row: (rendering x digits + digit) x colours + colour."""
        _, numbers = bundled_digits()
        rows = np.arange(len(numbers) * len(COLOURS) * self.renderings, dtype=np.int64)
        colour, image = rows % len(COLOURS), rows // len(COLOURS) % len(numbers)
        # Training never shows one colour of every digit, two digits of every colour.
        held, splits = numbers[image] % len(COLOURS) == colour, splits_of(len(numbers))[image]
        keep = ~held | (splits != "train")
        if self.pairs != "all":
            keep &= held == (self.pairs == "held_out")
        if self.split is not None:
            keep &= splits == self.split
        return np.asarray(rows[keep])

    def _make(self, rows: NDArray[np.int64]) -> dict[str, list[str] | list[bytes]]:
        glyphs, numbers = bundled_digits()
        colour, image = rows % len(COLOURS), rows // len(COLOURS) % len(numbers)
        rendering = rows // len(COLOURS) // len(numbers)
        digits = [DIGITS[n] for n in numbers[image]]
        colours = [list(COLOURS)[n] for n in colour]
        places = list(zip(image.tolist(), colours, rendering.tolist(), strict=True))
        keys = [f"{self.domain}/{i:04d}-{word}-{r}" for i, word, r in places]
        words = np.array([key64(self.seed, key) for key in keys], dtype=np.uint64)
        pictures = self._draw(glyphs[image], np.array(list(COLOURS.values()))[colour], words, keys)
        return {
            ROW_ID: keys,
            IMAGE: [_png(picture) for picture in pictures],
            "digit": digits,
            "colour": colours,
            "pair": [f"{c} {d}" for c, d in zip(colours, digits, strict=True)],
            "caption": _captions(digits, colours, words),
            "split": splits_of(len(numbers))[image].tolist(),
        }

    def _draw(self, glyphs: F64, rgb: I64, words: U64, keys: list[str]) -> NDArray[np.uint8]:
        """(N, size, size, 3) pictures."""
        draws = [uniform(mix(words + np.uint64(i))) for i in range(1, 7)]
        turn, scale, right, down, light, paper = (2 * draw - 1 for draw in draws)
        degrees = TURN * turn + (SHIFTED_TURN if self.domain == "shifted" else 0.0)
        move = SHIFT / 32 * np.stack([right, down], axis=1)
        ink = place(glyphs, self.size, np.deg2rad(degrees), GLYPH * (1 + SCALE * scale), move)[..., None]
        ground, strength = (20, 0.9) if self.domain == "plain" else (225, 0.35)
        strokes = rgb * (strength + 0.1 * light)[:, None]
        pictures = (ground + 15 * paper)[:, None, None, None] * (1 - ink) + strokes[:, None, None, :] * ink
        if self.domain == "shifted":
            noise = [rng_for(self.seed, key).normal(0, SHIFTED_NOISE, pictures.shape[1:]) for key in keys]
            pictures += np.stack(noise)
        return np.clip(np.rint(pictures), 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def bundled_digits() -> tuple[F64, I64]:
    """(1797, 8, 8) strokes between 0 and 1, and (1797,) digits 0 to 9."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return np.asarray(data.images, dtype=np.float64) / 16, np.asarray(data.target, dtype=np.int64)


def splits_of(n: int) -> NDArray[np.str_]:
    """(n,) split of each digit's image."""
    order = np.argsort(mix(np.arange(n, dtype=np.uint64) + np.uint64(key64(0, "digits"))), kind="stable")
    splits = np.full(n, "train", dtype="<U10")
    splits[order[:TEST]] = "test"
    splits[order[TEST : TEST + VALIDATION]] = "validation"
    return splits


def place(glyphs: F64, size: int, radians: F64, scale: F64, move: F64) -> F64:
    """Glyphs turned, scaled and moved on empty squares, interpolated bilinearly.

    Args:
        glyphs: (N, G, G) strokes between 0 and 1.
        radians: (N,) turn, clockwise as seen.
        scale: (N,) side of the glyph as a share of the square's.
        move: (N, 2) to the right and down, as shares of the square's side.

    Returns:
        (N, size, size) strokes between 0 and 1.
    """
    n, side, _ = glyphs.shape
    centres = (np.arange(size) + 0.5) / size - 0.5
    x = centres[None, None, :] - move[:, 0, None, None]
    y = centres[None, :, None] - move[:, 1, None, None]
    cosine, sine = np.cos(radians)[:, None, None], np.sin(radians)[:, None, None]
    factor = side / scale[:, None, None]
    # Coordinates in a glyph with a border of one empty pixel, beyond which everything is empty.
    column = np.clip((cosine * x + sine * y) * factor + side / 2 + 0.5, 0, side + 1)
    row = np.clip((cosine * y - sine * x) * factor + side / 2 + 0.5, 0, side + 1)
    framed = np.pad(glyphs, ((0, 0), (1, 2), (1, 2)))
    left, top = column.astype(np.int64), row.astype(np.int64)
    across, along = column - left, row - top
    which = np.arange(n)[:, None, None]
    upper = framed[which, top, left] * (1 - across) + framed[which, top, left + 1] * across
    lower = framed[which, top + 1, left] * (1 - across) + framed[which, top + 1, left + 1] * across
    return np.asarray(upper * (1 - along) + lower * along)


def _captions(digits: list[str], colours: list[str], words: U64) -> list[str]:
    """One of six templates around the digit, in half of the captions with its colour."""
    template = (uniform(mix(words + np.uint64(7))) * len(TEMPLATES)).astype(int)
    with_colour = uniform(mix(words + np.uint64(8))) < 0.5
    things = [f"{c} {d}" if named else d for c, d, named in zip(colours, digits, with_colour, strict=True)]
    return [TEMPLATES[i].format(thing) for i, thing in zip(template, things, strict=True)]


def _png(picture: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, "PNG", compress_level=1)
    return sink.getvalue()
