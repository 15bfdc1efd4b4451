"""What a trained head says of new rows, read from the checkpoint that fine-tuning wrote.

predicted       the class of the largest logit, as a word; of a head of one number the number, in the target's units
probabilities   (K,) softmax of the logits, in the order of head.json's `classes`
"""

# Shapes: N rows, B rows of a batch, T tokens, D width, K outputs.

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from xfm.core.backbone import Backbone
from xfm.core.errors import Refused
from xfm.core.hub import fetch_folder
from xfm.core.tokenizer import Tokens
from xfm.models.headed_checkpoint import ABOUT, HEAD, read_head
from xfm.models.hub_folder import PATTERNS
from xfm.models.reductions import Pool

PREDICTED, PROBABILITIES = "predicted", "probabilities"
NEEDED = {"dim", "dropout", "head", "pool"}  # of head.json, whatever the outputs are


def head_of(backbone: Any) -> dict[str, Any]:
    """What head.json says, of the checkpoint that a backbone is read from.

    Raises:
        Refused: NO_HEAD; or BAD_HEAD, it does not say what a head needs.
    """
    folder = _folder(backbone)
    path = folder / ABOUT
    if not path.is_file() or not (folder / HEAD).is_file():
        raise Refused("NO_HEAD", f"--predictions: {folder} holds no {HEAD} and {ABOUT}. jobs/finetune.py writes them "
                      "with --task.kind classification or regression")  # fmt: skip
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise Refused("BAD_HEAD", f"--predictions: {path} is not JSON ({problem}). Copy it again") from None
    lacking = sorted(NEEDED - about.keys()) if isinstance(about, dict) else sorted(NEEDED)
    if lacking or not ({"classes", "target"} & about.keys()):
        raise Refused("BAD_HEAD", f"--predictions: {path} does not say {', '.join(lacking) or 'classes or target'}. Is "
                      "it one that jobs/finetune.py wrote?")  # fmt: skip
    return dict(about)


class HeadReader:
    """Holds the head in a backbone's folder; maps last states to what it says of them.

    Raises:
        Refused: NO_HEAD or BAD_HEAD.
    """

    def __init__(self, backbone: Any, device: str) -> None:
        self.about = head_of(backbone)
        self.head = read_head(_folder(backbone), self.about).to(device).eval()
        self.pool = Pool(self.about["pool"])

    def __call__(self, state: Tensor, tokens: Tokens, backbone: Backbone) -> NDArray[np.float32]:
        """(B, T, D) last state to (B, K) outputs."""
        (vectors,) = self.pool(state, tokens, backbone).values()
        outputs: NDArray[np.float32] = self.head(vectors.float()).cpu().numpy()
        return outputs

    def columns(self, outputs: NDArray[np.float32]) -> dict[str, pa.Array]:
        """(N, K) outputs to columns by name."""
        classes = self.about.get("classes")
        if classes is None:
            target = self.about["target"]
            return {PREDICTED: pa.array(outputs[:, 0].astype(np.float64) * target["sd"] + target["mean"])}
        powers = np.exp(outputs.astype(np.float64) - outputs.max(axis=1, keepdims=True, initial=-np.inf))
        shares = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
        words = pa.array(classes, pa.string()).take(pa.array(outputs.argmax(axis=1)))
        return {
            PREDICTED: words,
            PROBABILITIES: pa.FixedSizeListArray.from_arrays(pa.array(shares.reshape(-1)), len(classes)),
        }


def _folder(backbone: Any) -> Path:
    checkpoint = getattr(backbone, "checkpoint", None)
    if checkpoint is None:
        raise Refused("NO_HEAD", f"--predictions reads the head of --backbone.checkpoint; --backbone.kind "
                      f"{backbone.kind} names none")  # fmt: skip
    return fetch_folder(str(checkpoint), PATTERNS).folder
