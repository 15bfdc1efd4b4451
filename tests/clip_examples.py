"""Coloured squares as encoded pictures, some of them broken, and a tiny CLIP whose byte pairs know their captions."""

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from xfm.core.config import Config
from xfm.core.schema import IMAGE, REFUSED, ROW_ID, SHARD
from xfm.core.source import Shard

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 230), "été": (240, 220, 40)}
TEMPLATES = ("a photo of a {} square", "the {} one", "un carré {}")


def captions() -> list[str]:
    return [template.format(colour) for template in TEMPLATES for colour in COLOURS]


def encoded(image: Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
    """A picture's bytes."""
    stream = BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Smooth noise: neither flat, nor so rough that a resize leaves nothing of it."""
    rng = np.random.default_rng(seed)
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    coarse = rng.integers(0, 256, (1 + height // 3, 1 + width // 3, channels), dtype=np.uint8)
    pixels = coarse.repeat(3, axis=0).repeat(3, axis=1)[:height, :width]
    return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels, mode=None if channels == 1 else mode)


def pictures(n: int, seed: int = 0) -> tuple[list[bytes], list[str]]:
    """Squares of a colour under noise, of many sizes, as PNG or JPEG; and the names of their colours."""
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for i in range(n):
        label = list(COLOURS)[i % len(COLOURS)]
        width, height = (int(edge) for edge in rng.integers(9, 90, 2))
        pixels = np.array(COLOURS[label]) + rng.normal(0, 25, (height, width, 3))
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        images.append(encoded(image, ("PNG", "JPEG")[i % 2]))
        labels.append(label)
    return images, labels


class Pictures(Config):
    """A source of coloured squares in two shards; one row is broken, as happens."""

    n: int = 12

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([(ROW_ID, pa.string()), (SHARD, pa.string()), (REFUSED, pa.string()),
                          (IMAGE, pa.large_binary()), ("label", pa.string())])  # fmt: skip

    def shards(self) -> Sequence[Shard]:
        half = self.n // 2
        return [Shard("pictures-0", 0, half, half), Shard("pictures-1", half, self.n, self.n - half)]

    def read(self, shard: Shard) -> Iterator[pa.RecordBatch]:
        images, labels = pictures(self.n)
        images[3] = images[3][: len(images[3]) // 2]
        rows = range(shard.start, shard.stop)
        yield pa.RecordBatch.from_arrays([
            pa.array([f"picture-{i}" for i in rows]), pa.array([shard.key] * len(rows)),
            pa.array([None] * len(rows), pa.string()), pa.array([images[i] for i in rows], pa.large_binary()),
            pa.array([labels[i] for i in rows]),
        ], schema=self.schema)  # fmt: skip

    def genes(self) -> None:
        return None

    def identity(self) -> dict[str, Any]:
        return {"pictures": self.n}


def fresh_clip(**sizes: Any) -> Any:
    """Two image blocks of width 32 over 24-pixel pictures, two text blocks of width 24."""
    from xfm.models.clip.fresh import CLIPSizes, FreshCLIP

    tiny = {"image_size": 24, "patch_size": 8, "image_width": 32, "image_layers": 2, "text_width": 24,
            "text_layers": 2, "projection_dim": 20}  # fmt: skip
    return FreshCLIP.from_captions(captions(), CLIPSizes(**(tiny | sizes)), vocabulary_size=560)


def write_clip(folder: Path, **sizes: Any) -> Path:
    """A checkpoint folder as transformers itself writes it, with random weights."""
    import torch
    from transformers import CLIPModel, CLIPProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    fresh = fresh_clip(**sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPModel(fresh.hub_config())
        for parameter in model.parameters():
            if parameter.dim() > 1:  # as CLIPModel draws them, blocks hardly change a state
                parameter.data.mul_(3)
            else:
                parameter.data.add_(torch.randn_like(parameter) * 0.05)
    edge = fresh.sizes.image_size
    processor = CLIPProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": edge}, crop_size={"height": edge, "width": edge}),
        fresh.hub_tokenizer(),
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
