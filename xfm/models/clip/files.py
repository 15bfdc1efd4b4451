"""A CLIP checkpoint as a plain folder of `transformers`, which `CLIPModel`, `CLIPProcessor` and kind `clip` read.

Its files, what pictures it was trained on (size, crop, mean and standard deviation), and how it is written. Light to
import.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xfm.core.errors import Refused
from xfm.models.hub_folder import Files, find_files, read_json

NESTED, FLAT = "processor_config.json", "preprocessor_config.json"
IMAGES = (NESTED, FLAT)

BICUBIC = 3  # Pillow's number
# CLIPImageProcessor's defaults: Radford et al., ICML 2021.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
SCALE = 1 / 255


@dataclass(frozen=True, slots=True)
class Preparation:
    """How a picture becomes numbers."""

    edge: int  # what the shortest edge is resized to, in pixels
    size: int  # edge of the square that is cut out of the middle
    mean: tuple[float, float, float] = MEAN  # mean, std: of red, green and blue, on a scale of 0 to 1
    std: tuple[float, float, float] = STD


def find_clip_files(folder: Path, *, weights: bool = True) -> Files:
    """The files of a folder, with those that say how pictures are prepared; raises as `find_files`."""
    return find_files(folder, weights=weights, images=IMAGES)


def read_preparation(folder: Path) -> Preparation:
    """What preprocessor_config.json says, or processor_config.json, which transformers 5 writes and prefers.

    Raises:
        Refused: NO_PREPROCESSOR, or BAD_PREPROCESSOR: pictures are prepared otherwise than CLIPImageProcessor does.
    """
    files = {path.name: read_json(path) for path in find_clip_files(folder, weights=False).images}
    nested = files.get(NESTED, {}).get("image_processor")
    found, path = (nested, folder / NESTED) if nested is not None else (files.get(FLAT), folder / FLAT)
    if not isinstance(found, dict):
        raise Refused("BAD_PREPROCESSOR", f"{folder / NESTED} says nothing of images, and there is no {FLAT}")
    _check_steps(found, path)
    crop, edge = found.get("crop_size", 224), found.get("size", 224)
    sides = [crop.get("height"), crop.get("width")] if isinstance(crop, dict) else [crop]
    edges = [edge["shortest_edge"]] if isinstance(edge, dict) and set(edge) == {"shortest_edge"} else [edge]
    sizes = [value for value in (*edges, *sides) if isinstance(value, int) and value > 0]
    if len(sizes) < len(edges + sides) or len(set(sizes[1:])) > 1 or sizes[0] < sizes[1]:
        raise Refused(
            "BAD_PREPROCESSOR",
            f"{path}: size {edge} and crop_size {crop}; a shortest edge and a square that fits into it are read",
        )
    colours = _colours(found, "image_mean", MEAN, path), _colours(found, "image_std", STD, path)
    return Preparation(sizes[0], sizes[1], *colours)


def _check_steps(found: dict[str, Any], path: Path) -> None:
    """Raises Refused: BAD_PREPROCESSOR, a step is left out or added."""
    steps = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")
    asked = dict.fromkeys(steps, True) | {"do_pad": False, "resample": BICUBIC}
    wrong = [f"{name} {found[name]}" for name, value in asked.items() if found.get(name) not in (None, value)]
    if abs((found.get("rescale_factor") or SCALE) - SCALE) > 1e-9:
        wrong.append(f"rescale_factor {found['rescale_factor']}")
    if wrong:
        raise Refused("BAD_PREPROCESSOR", f"{path}: {', '.join(wrong)}; CLIP's own preparation has other values there")


def _colours(
    found: dict[str, Any], name: str, default: tuple[float, float, float], path: Path
) -> tuple[float, float, float]:
    values = found.get(name, default)
    if not isinstance(values, list | tuple) or len(values) != 3 or not all(isinstance(v, int | float) for v in values):
        raise Refused("BAD_PREPROCESSOR", f"{path}: {name} is {values}, not three numbers")
    if name == "image_std" and min(values) <= 0:
        raise Refused("BAD_PREPROCESSOR", f"{path}: {name} is {values}; what is divided by must be above 0")
    red, green, blue = map(float, values)
    return red, green, blue
