"""Encoded pictures to the square of bytes that a CLIP image tower cuts into patches.

The arithmetic is that of `CLIPImageProcessorPil` of transformers 5 up to the last byte: RGB over white where a picture
is transparent, shortest edge resized by Pillow's bicubic filter, centre cropped, EXIF orientation left alone. What
differs is where it ends: bytes are kept, a quarter of the size of float32, and normalised on the device that computes.
The random crop of training is Szegedy et al., CVPR 2015, section 6, as every fine-tuning recipe of CLIP uses it.
"""

import struct
import zlib
from dataclasses import dataclass, replace
from io import BytesIO
from math import exp, log, sqrt
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from xfm.core.errors import Refused
from xfm.core.schema import IMAGE, PIXELS, REFUSED, spoken
from xfm.core.tokenizer import Tokens

U8 = NDArray[np.uint8]
LEAST_AREA = 0.08  # of a random crop, as torchvision has it

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")
# Eight bits a channel. Pillow cuts 16-bit and float samples off at 255 instead of scaling them: a white square.
MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})
LARGEST = 89_478_485  # pixels, Pillow's own bound of what is no decompression bomb; also of a picture once resized

# What Pillow's readers raise over broken files.
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, OverflowError)
_BROKEN_INSIDE = (struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning)


@dataclass(frozen=True)
class ImageTokenizer:
    """One picture a row; its tokens are the class token and the patches."""

    size: int  # edge S of the square that the network sees, in pixels
    edge: int  # what the shortest edge is resized to before the square is cut out; at least `size`
    n_tokens: int  # patches and the class token
    is_encoded: bool = False  # whether rows keep their picture as it came, decoded only when they are collated

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """IMAGE to PIXELS, or to itself where rows stay encoded; one row in, one row out.

        Raises:
            Refused: NO_IMAGE, the source gives no picture.
        """
        if IMAGE not in batch.schema.names:
            raise Refused("NO_IMAGE", f"the source gives no picture, only {spoken(batch.schema.names)}")
        reasons = batch.column(REFUSED).to_pylist()
        rows = 0 if self.is_encoded else batch.num_rows
        pixels = np.zeros((rows, 3, self.size, self.size), dtype=np.uint8)
        for i, data in enumerate(batch.column(IMAGE)):
            if reasons[i] is not None:
                continue
            try:
                image = decode(data.as_py())
                width, height = _resized(image, self.edge)
                if width * height > LARGEST:  # so narrow that it would not fit into memory
                    why = f"{image.width} x {image.height} pixels would be resized to {width} x {height}"
                    raise Refused("BAD_IMAGE", why)
                if not self.is_encoded:
                    pixels[i] = centre_crop(image, self.size, edge=self.edge)
            except Refused as problem:
                reasons[i] = str(problem)
        columns = {name: batch.column(name) for name in batch.schema.names if name not in (IMAGE, REFUSED)}
        columns[REFUSED] = pa.array(reasons, pa.string())
        flat = pa.array(pixels.reshape(-1))
        pictures = {PIXELS: pa.FixedSizeListArray.from_arrays(flat, 3 * self.size**2)}
        return pa.RecordBatch.from_pydict(columns | ({IMAGE: batch.column(IMAGE)} if self.is_encoded else pictures))

    def collate(self, batch: pa.RecordBatch | pa.Table) -> Tokens:
        """Pixels (B, 3, S, S) of rows with PIXELS, or centre crops of rows with IMAGE.

        Raises:
            Refused: BAD_IMAGE, rows that `__call__` did not see.
        """
        if PIXELS in batch.schema.names:
            column = batch.column(PIXELS)
            whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
            pixels = whole.flatten().to_numpy(zero_copy_only=False).reshape(-1, 3, self.size, self.size)
            return self.tokens(pixels.copy())
        crops = [centre_crop(decode(data.as_py()), self.size, edge=self.edge) for data in batch.column(IMAGE)]
        return self.tokens(np.stack(crops))

    def tokens(self, pixels: U8) -> Tokens:
        """(B, 3, S, S) pixels as a batch."""
        import torch

        shape = (len(pixels), self.n_tokens)
        is_content = torch.ones(shape, dtype=torch.bool)
        is_content[:, 0] = False
        ids, is_token = torch.zeros(shape, dtype=torch.int64), torch.ones(shape, dtype=torch.bool)
        return Tokens(ids, None, is_token, is_content, pixels=torch.from_numpy(pixels))

    def lengths(self, rows: pa.Table) -> NDArray[np.int64]:
        """(N,) tokens of each row: all alike."""
        return np.full(rows.num_rows, self.n_tokens, dtype=np.int64)

    def for_training(self) -> Self:
        """The same with rows that stay encoded: 2 to 100 kB a picture, and each epoch may crop anew."""
        return replace(self, is_encoded=True)

    def describe(self) -> dict[str, Any]:
        """Sizes in pixels, and tokens of a row."""
        return {"image_size": self.size, "shortest_edge": self.edge, "tokens": self.n_tokens}


def decode(data: bytes | None) -> Image.Image:
    """A whole picture in RGB, transparent parts over white; of an animation the first frame.

    Raises:
        Refused: BAD_IMAGE, with what is wrong: cut off, another format, too large, more than 8 bits a channel.
    """
    if not data:
        raise Refused("BAD_IMAGE", "no bytes")
    try:
        image: Image.Image = Image.open(BytesIO(data), formats=FORMATS)
        if image.width * image.height > LARGEST:
            raise Refused("BAD_IMAGE", f"{image.width} x {image.height} pixels, more than {LARGEST:,}")
        if image.format == "PNG":  # its checksums are not looked at when it is decoded
            image.verify()
            image = Image.open(BytesIO(data), formats=FORMATS)
        if image.mode not in MODES:
            why = f"{image.format} of mode {image.mode}, more than 8 bits a channel: convert it to 8 first"
            raise Refused("BAD_IMAGE", why)
        image.load()
        return _over_white(image)
    except UnidentifiedImageError:
        raise Refused("BAD_IMAGE", f"{len(data):,} bytes that are none of {', '.join(FORMATS)}") from None
    except Refused:
        raise
    except (*_BROKEN, *_BROKEN_INSIDE) as problem:
        raise Refused("BAD_IMAGE", f"{type(problem).__name__}: {problem}") from problem


def _over_white(image: Image.Image) -> Image.Image:
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image).convert("RGB")


def centre_crop(image: Image.Image, size: int, *, edge: int | None = None) -> U8:
    """Shortest edge to `edge` pixels by the bicubic filter, and the square in the middle.

    Args:
        edge: at least `size`, which it is by default.

    Returns:
        (3, S, S) for a square of `size` pixels.
    """
    resized = image.resize(_resized(image, edge or size), Image.Resampling.BICUBIC)
    left, top = (resized.width - size) // 2, (resized.height - size) // 2
    return _planes(resized.crop((left, top, left + size, top + size)))


def _resized(image: Image.Image, edge: int) -> tuple[int, int]:
    """Width and height once the shortest edge is `edge`."""
    width, height = image.size
    return (edge, int(edge * height / width)) if width <= height else (int(edge * width / height), edge)


def random_crop(
    image: Image.Image, size: int, rng: np.random.Generator, *, flip: bool = True, least: float = LEAST_AREA
) -> U8:
    """A part of some of the area and of proportions 3:4 to 4:3, resized to a square; mirrored half of the time.

    Args:
        rng: of this picture in this epoch.
        flip: whether to mirror; not for digits or text, which have a right way round.
        least: smallest share of the area; the largest is all of it.

    Returns:
        (3, S, S) for a square of `size` pixels.

    Source: `torchvision.transforms.RandomResizedCrop`; after ten parts that do not fit, the largest in the middle.
    """
    left, top, width, height = _random_part(image.width, image.height, rng, least)
    part = image.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BICUBIC)
    pixels = _planes(part)
    return np.ascontiguousarray(pixels[:, :, ::-1]) if flip and rng.random() < 0.5 else pixels


def _random_part(width: int, height: int, rng: np.random.Generator, least: float) -> tuple[int, int, int, int]:
    """Left, top, width and height."""
    narrow, wide = 3 / 4, 4 / 3
    for _ in range(10):
        area = width * height * rng.uniform(least, 1.0)
        ratio = exp(rng.uniform(log(narrow), log(wide)))
        w, h = round(sqrt(area * ratio)), round(sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h
    w, h = min(width, max(1, round(height * wide))), min(height, max(1, round(width / narrow)))
    return (width - w) // 2, (height - h) // 2, w, h


def _planes(image: Image.Image) -> U8:
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
