"""A CLIP checkpoint as a plain folder of `transformers`, which `CLIPModel`, `CLIPProcessor` and kind `clip` read."""

import shutil
from pathlib import Path
from typing import Any

from xfm.models.clip.files import find_clip_files
from xfm.models.clip.fresh import FreshCLIP
from xfm.models.clip.network import CLIPBackbone
from xfm.models.hub_folder import new_folder
from xfm.models.pretrained import quiet


def write_checkpoint(folder: Path, backbone: CLIPBackbone, fresh: FreshCLIP, *, replace: bool = False) -> None:
    """A network that was trained from `fresh`; the files appear together or not at all.

    Args:
        folder: created; its parent too.
        backbone: weights are written in float32.
        fresh: what it was before training; gives the tokenizer and the preparation of pictures.
        replace: whether an existing folder is exchanged.

    Raises:
        Refused: OUTPUT_EXISTS.
    """
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    prepared = fresh.preparation
    # Not `CLIPImageProcessor`: where torchvision is installed that resizes otherwise.
    images: Any = CLIPImageProcessorPil(
        size={"shortest_edge": prepared.edge}, crop_size={"height": prepared.size, "width": prepared.size},
        image_mean=list(prepared.mean), image_std=list(prepared.std),
    )  # fmt: skip
    with new_folder(folder, replace=replace) as new:
        _write_network(new, backbone.network)
        fresh.hub_tokenizer().save_pretrained(new)
        images.save_pretrained(new)


def save_clip(folder: Path, network: Any, source: Path, *, replace: bool = False) -> None:
    """A network that was fine-tuned, with the tokenizer and the preparation of the checkpoint that it came from.

    Args:
        folder: created; its parent too.
        network: a `transformers.CLIPModel` without adapters; weights are written in float32.
        source: folder of that checkpoint, `CLIP.folder`.
        replace: whether an existing folder is exchanged.

    Raises:
        Refused: OUTPUT_EXISTS, or as `find_files`.
    """
    files = find_clip_files(source, weights=False)
    with new_folder(folder, replace=replace) as new:
        _write_network(new, network)
        for path in (*files.tokenizer, *files.images):
            shutil.copyfile(path, new / path.name)


def _write_network(folder: Path, network: Any) -> None:
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with quiet():
        network.save_pretrained(folder, state_dict=tensors)
