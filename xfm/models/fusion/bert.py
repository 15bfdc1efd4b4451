"""What a frozen encoder says of short texts, at its last layer.

The network is in evaluation mode, whatever happens to the one that reads its vectors: an encoder whose dropout follows
the training mode of the whole gives a label another vector in every batch.
"""

import pyarrow as pa
import torch

from xfm.core.errors import Refused
from xfm.core.schema import INPUT_IDS, REFUSED, SHARD, TEXT
from xfm.models.fusion.bank import LabelVectors
from xfm.models.hf_text.config import HFText
from xfm.models.reductions import Pool, PoolName


def read_texts(encoder: HFText, texts: list[str], pooling: PoolName | None) -> list[LabelVectors]:
    """The vectors of each text; one at a time, so that they depend on no other.

    Args:
        encoder: its recipe.
        texts: K of them.
        pooling: of the last layer, giving (1, width) a text; None for every token that is not special.

    Raises:
        Refused: EMPTY, nothing of a text becomes a token; or as `HFText.build` and `HFText.tokenizer`.
    """
    tokenizer, backbone = encoder.tokenizer(0), encoder.build("cpu")
    rows = tokenizer(pa.RecordBatch.from_pydict({
        SHARD: pa.array(["labels"] * len(texts)), REFUSED: pa.nulls(len(texts), pa.string()), TEXT: pa.array(texts),
    }))  # fmt: skip
    if found := [
        (text, reason) for text, reason in zip(texts, rows.column(REFUSED).to_pylist(), strict=True) if reason
    ]:
        raise Refused("EMPTY", f"the label text {found[0][0]!r}: {found[0][1].partition(': ')[2]}")
    rows = rows.select([INPUT_IDS])
    vectors = []
    for row in range(len(texts)):
        tokens = tokenizer.collate(rows.slice(row, 1))
        with torch.inference_mode():
            *_, last = backbone.layers(tokens)
            said = last[tokens.is_content] if pooling is None else Pool(pooling)(last, tokens, backbone)[pooling]
        vectors.append(LabelVectors(said.numpy().copy(), int(tokens.is_content.sum())))
    return vectors
