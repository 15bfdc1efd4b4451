"""What PyTorch sees of GPUs, as one line of JSON. A program of its own: see `machine.see_gpus`."""

import json
import os
import sys
import warnings
from typing import Any


def look() -> dict[str, Any]:
    """Version of torch, the CUDA it was built for, cards with their bytes of memory, and what torch warned of."""
    import torch

    cards: list[dict[str, Any]] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        said = []
        try:
            if torch.cuda.is_available():
                for number in range(torch.cuda.device_count()):
                    card = torch.cuda.get_device_properties(number)
                    cards.append({"name": card.name, "memory": card.total_memory})
        except RuntimeError as error:
            said.append(str(error))
    said += [str(warning.message) for warning in caught]
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda or torch.version.hip,
        "cards": cards,
        "warnings": [" ".join(line.split()) for line in said],
        "hidden": os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(look()) + "\n")
