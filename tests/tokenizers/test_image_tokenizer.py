"""Pixels are those of CLIPImageProcessorPil; what does not decode is refused with a reason."""

import pickle
from io import BytesIO

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from tests.clip_examples import encoded, noise
from xfm.core.errors import Refused
from xfm.core.random import rng_for
from xfm.core.schema import IMAGE, PIXELS, REFUSED, ROW_ID, SHARD
from xfm.tokenizers import image as image_module
from xfm.tokenizers.image import ImageTokenizer, centre_crop, decode, random_crop

S = 24
SIZES = [(24, 24), (48, 24), (25, 24), (24, 25), (640, 427), (427, 640), (64, 64), (1, 1), (3, 2), (7, 300), (2000, 3),
         (1, 500), (33, 50), (23, 24), (225, 224), (101, 99)]  # fmt: skip


def tokenizer(edge=S, size=S):
    return ImageTokenizer(size, edge, 10)


def batch(images, refused=None):
    n = len(images)
    return pa.RecordBatch.from_pydict({
        ROW_ID: pa.array([f"r{i}" for i in range(n)]), SHARD: pa.array(["s"] * n),
        REFUSED: pa.array(refused or [None] * n, pa.string()), IMAGE: pa.array(images, pa.large_binary()),
        "label": pa.array(list(range(n))),
    })  # fmt: skip


def reference(data, size=S, edge=S):
    """(3, S, S) float32 of transformers, normalised."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(size={"shortest_edge": edge}, crop_size={"height": size, "width": size})
    with Image.open(BytesIO(data)) as image:
        return processor(image, return_tensors="np")["pixel_values"][0]


def normalised(pixels):
    from xfm.models.clip.files import MEAN, STD

    mean, std = (np.array(each, np.float32)[:, None, None] for each in (MEAN, STD))
    return (pixels.astype(np.float32) / np.float32(255) - mean) / std


def pixels_of(data, size=S, edge=S):
    out = tokenizer(edge, size)(batch([data]))
    assert out[REFUSED].to_pylist() == [None]
    return np.array(out[PIXELS][0].as_py(), np.uint8).reshape(3, size, size)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_shape_gives_the_pixels_of_transformers(width, height):
    data = encoded(noise(width, height))
    for size, edge in ((S, S), (S, 30), (7, 7)):
        # float32 rounding, of numbers up to 2.7
        np.testing.assert_allclose(
            normalised(pixels_of(data, size, edge)), reference(data, size, edge), rtol=0, atol=2.4e-7
        )


def in_modes():
    grey, colour, clear = noise(40, 33, "L"), noise(40, 33), noise(40, 33, "RGBA")
    palette = colour.quantize(16)
    yield "grey", encoded(grey)
    yield "black and white", encoded(grey.convert("1"))
    yield "grey with alpha", encoded(noise(40, 33, "LA"))
    yield "alpha", encoded(clear)
    yield "palette", encoded(palette)
    yield "palette with one transparent colour", encoded(palette, transparency=3)
    yield "palette with transparencies", encoded(palette, transparency=bytes(range(0, 256, 16)))
    yield "colour with a transparent one", encoded(colour, transparency=colour.getpixel((3, 3)))
    yield "cmyk", encoded(noise(40, 33, "CMYK"), "JPEG")
    yield "grey jpeg", encoded(grey, "JPEG")
    yield "progressive jpeg", encoded(colour, "JPEG", progressive=True)
    yield "webp", encoded(clear, "WEBP")
    yield "gif", encoded(palette, "GIF")
    yield "animation", encoded(palette, "GIF", save_all=True, append_images=[grey.quantize(4)])
    yield "bmp", encoded(colour, "BMP")
    yield "tiff", encoded(colour, "TIFF")
    yield "16 bits a colour", _sixteen_bits(np.asarray(colour))


def _sixteen_bits(pixels):
    """A PNG written by hand: Pillow writes 16 bits of grey only."""
    import struct
    import zlib

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + (row.astype(">u2") * 256 + 77).astype(">u2").tobytes() for row in pixels)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    whole = (struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


@pytest.mark.parametrize(("name", "data"), [pytest.param(*each, id=each[0]) for each in in_modes()])
def test_every_mode_gives_the_pixels_of_transformers(name, data):
    found = normalised(pixels_of(data))
    assert found.std() > 0.1
    np.testing.assert_allclose(found, reference(data), rtol=0, atol=2.4e-7)


def test_orientation_in_exif_is_left_alone_as_transformers_does():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    turned, plain = encoded(noise(40, 30), "JPEG", exif=exif), encoded(noise(40, 30), "JPEG")
    np.testing.assert_array_equal(pixels_of(turned), pixels_of(plain))
    np.testing.assert_allclose(normalised(pixels_of(turned)), reference(turned), rtol=0, atol=2.4e-7)


PNG, JPEG = encoded(noise(60, 50)), encoded(noise(60, 50), "JPEG")
BROKEN = {
    "nothing": None,
    "no bytes": b"",
    "zeros": b"\0" * 100,
    "text": b"<html>404</html>",
    "png cut off": PNG[: len(PNG) // 2],
    "png without its end": PNG[:-12],
    "png with other bytes": PNG[:200] + bytes(byte ^ 255 for byte in PNG[200:210]) + PNG[210:],
    "jpeg cut off": JPEG[: len(JPEG) // 2],
    "jpeg header alone": JPEG[:30],
    "webp cut off": encoded(noise(60, 50), "WEBP", lossless=True)[:300],
    "gif cut off": encoded(noise(60, 50).quantize(16), "GIF")[:200],
    "bmp cut off": encoded(noise(60, 50), "BMP")[:500],
    "tiff cut off": encoded(noise(60, 50), "TIFF")[:400],
    "another format": encoded(noise(60, 50), "PCX"),
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_picture_is_refused_and_its_neighbours_are_not(name):
    for each in (tokenizer(), tokenizer().for_training()):
        out = each(batch([PNG, BROKEN[name], JPEG]))
        first, reason, last = out[REFUSED].to_pylist()
        assert (first, last) == (None, None)
        assert reason.startswith("BAD_IMAGE: ")
        assert len(reason) > len("BAD_IMAGE: ")
    with pytest.raises(Refused, match="BAD_IMAGE"):
        decode(BROKEN[name])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of damaged tags, which Pillow passes over
def test_bytes_changed_anywhere_never_end_the_job():
    """Either refused or decoded, at whatever byte a picture is damaged."""
    rng = np.random.default_rng(0)
    kinds = [encoded(noise(20, 16), kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")]
    kinds.append(encoded(noise(20, 16).quantize(9), "GIF"))
    refused = 0
    for data in kinds:
        for _ in range(150):
            damaged = bytearray(data)
            for place in rng.integers(0, min(len(data), 400), rng.integers(1, 4)):
                damaged[place] = rng.integers(256)
            (reason,) = tokenizer().for_training()(batch([bytes(damaged)]))[REFUSED].to_pylist()
            assert reason is None or reason.startswith("BAD_IMAGE: ")
            refused += reason is not None
    assert 100 < refused < 1050


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (Image.fromarray(np.full((9, 9), 700, np.uint16)), "PNG"),
        (Image.fromarray(np.full((9, 9), 700, np.int32)), "TIFF"),
        (Image.fromarray(np.full((9, 9), 0.5, np.float32)), "TIFF"),
    ],
)
def test_more_than_8_bits_of_grey_are_refused_instead_of_cut_off(image, kind):
    with pytest.raises(Refused, match=r"BAD_IMAGE: .* mode .*more than 8 bits a channel"):
        decode(encoded(image, kind))


def test_a_bomb_is_refused_before_it_is_inflated(monkeypatch):
    monkeypatch.setattr(image_module, "LARGEST", 1000)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("inflated"))
    with pytest.raises(Refused, match=r"BAD_IMAGE: 60 x 50 pixels, more than 1,000"):
        decode(PNG)


@pytest.mark.parametrize("pixels", [100, 2000])  # Pillow warns at its limit, and raises at twice that
def test_what_pillow_takes_for_a_bomb_is_refused(monkeypatch, pixels):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)
    with pytest.raises(Refused, match="BAD_IMAGE: DecompressionBomb"):
        decode(PNG)


def test_a_line_of_pixels_that_would_fill_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(image_module, "LARGEST", 24 * 24 * 50)
    data = encoded(noise(100, 1))
    for each in (tokenizer(), tokenizer().for_training()):
        reason = each(batch([data]))[REFUSED][0].as_py()
        assert reason == "BAD_IMAGE: 100 x 1 pixels would be resized to 2400 x 24"


def test_columns_are_kept_and_earlier_refusals_stay():
    out = tokenizer()(batch([PNG, None, b"x"], [None, "NO_FILE: none", None]))
    assert out.schema.names == [ROW_ID, SHARD, "label", REFUSED, PIXELS]
    assert out.schema.field(PIXELS).type == pa.list_(pa.uint8(), 3 * S * S)
    assert out[REFUSED].to_pylist()[:2] == [None, "NO_FILE: none"]
    assert out["label"].to_pylist() == [0, 1, 2]
    with pytest.raises(Refused, match=r"NO_IMAGE: .*no picture, only label"):
        tokenizer()(pa.RecordBatch.from_pydict({"label": [1]}))


def test_a_batch_holds_pixels_and_one_class_token():
    images = [encoded(noise(30 + i, 40, seed=i)) for i in range(5)]
    table = pa.concat_tables([pa.Table.from_batches([tokenizer()(batch(images[:2]))]),
                              pa.Table.from_batches([tokenizer()(batch(images[2:]))])])  # fmt: skip
    assert table[PIXELS].num_chunks == 2
    expected = np.stack([pixels_of(data) for data in images])
    for rows, order in ((table, [0, 1, 2, 3, 4]), (table.take([4, 1]), [4, 1]), (table.slice(1, 2), [1, 2])):
        tokens = tokenizer().collate(rows)
        assert tokens.pixels.dtype == torch.uint8
        np.testing.assert_array_equal(tokens.pixels.numpy(), expected[order])
        assert tokens.ids.tolist() == [[0] * 10] * len(order)
        assert tokens.is_token.all()
        assert tokens.is_content.tolist() == [[False] + [True] * 9] * len(order)
        assert tokens.values is None
        assert tokenizer().lengths(rows).tolist() == [10] * len(order)
    one = tokenizer()(batch(images)).slice(3, 1)
    np.testing.assert_array_equal(tokenizer().collate(one).pixels.numpy(), expected[3:4])


def test_rows_for_training_stay_encoded_and_collate_to_the_same():
    images = [PNG, JPEG, b"broken", encoded(noise(30, 90))]
    kept = tokenizer().for_training()
    out = kept(batch(images))
    assert out.schema.names == [ROW_ID, SHARD, "label", REFUSED, IMAGE]
    assert out[IMAGE].to_pylist() == images
    assert kept.for_training() == kept == pickle.loads(pickle.dumps(kept))  # noqa: S301 - our own bytes
    good = out.take(pa.array([0, 1, 3]))
    np.testing.assert_array_equal(
        kept.collate(good).pixels.numpy(), np.stack([pixels_of(data) for data in (PNG, JPEG, images[3])])
    )


def test_a_random_crop_follows_from_its_generator():
    image = decode(PNG)
    first, again, other = (random_crop(image, S, rng_for(0, key)) for key in ("a", "a", "b"))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (3, S, S)
    assert first.dtype == np.uint8
    assert not np.array_equal(first, other)


def test_random_crops_have_the_areas_and_proportions_of_the_recipe():
    """A picture whose colours are its coordinates tells which part was taken; half of the parts are mirrored."""
    width, height = 200, 160
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    image = Image.fromarray(np.stack([x, y, 0 * x], axis=-1).astype(np.uint8))
    shares, ratios, mirrored = [], [], 0
    for i in range(300):
        crop = random_crop(image, 40, rng_for(1, str(i))).astype(float)
        across, down = crop[0, :, 30].mean() - crop[0, :, 9].mean(), (crop[1, 30] - crop[1, 9]).mean()
        assert down > 0
        mirrored += across < 0
        w, h = abs(across) * 40 / 21, down * 40 / 21
        shares.append(w * h / (width * height))
        ratios.append(w / h)
    assert 0.07 < min(shares) < 0.12
    assert 0.85 < max(shares) < 1.03
    assert 0.70 < min(ratios) < 0.80
    assert 1.25 < max(ratios) < 1.42
    assert np.mean(shares) == pytest.approx(0.5, abs=0.06)  # uniform, less what does not fit
    assert 120 < mirrored < 180  # binomial: 150 +- 3.5 standard deviations
    for i in range(50):
        crop = random_crop(image, 40, rng_for(1, str(i)), flip=False)
        assert crop[0, :, 30].mean() > crop[0, :, 9].mean()


def test_the_smallest_crop_can_be_asked_for():
    width, height = 200, 160
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    image = Image.fromarray(np.stack([x, y, 0 * x], axis=-1).astype(np.uint8))
    shares = []
    for i in range(200):
        crop = random_crop(image, 40, rng_for(1, str(i)), flip=False, least=0.6).astype(float)
        w, h = (crop[0, :, 30] - crop[0, :, 9]).mean() * 40 / 21, (crop[1, 30] - crop[1, 9]).mean() * 40 / 21
        shares.append(w * h / (width * height))
    assert 0.57 < min(shares) < 0.66


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 400), (400, 1), (2, 3)])
def test_a_random_crop_of_a_narrow_picture_is_its_middle(width, height):
    assert random_crop(noise(width, height), S, rng_for(0, "a")).shape == (3, S, S)


def test_it_describes_its_sizes():
    assert tokenizer(30).describe() == {"image_size": 24, "shortest_edge": 30, "tokens": 10}
    assert centre_crop(noise(50, 40), S).flags["C_CONTIGUOUS"]
