"""Sentences with a label, and tiny untrained encoders whose tokenizers are trained on them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

NAMES = ("neg", "pos")
TONE = (("dull", "tired", "shapeless", "hollow"), ("bright", "moving", "inventive", "tender"))


def sentences(n: int = 40, seed: int = 0) -> tuple[list[str], list[int]]:
    """Texts of 3 to about 30 words, sorted by class: first all positive, then all negative."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for i in range(n):
        label = int(i < n // 2)
        clauses = [
            f"a {rng.choice(TONE[label])} {rng.choice(['film', 'story', 'remake'])} about {rng.choice(['love', 'war'])}"
            for _ in range(rng.integers(1, 5))
        ]
        texts.append(" , and ".join(clauses) + ["", " .", " … ☃ !"][i % 3])
        labels.append(label)
    return texts, labels


def write_sentences(folder: Path, n: int = 40, *, with_names: bool = True, empty: bool = True) -> Path:
    """train.parquet with three quarters of the sentences, test.parquet with the rest; one is empty, as happens."""
    folder.mkdir(parents=True, exist_ok=True)
    texts, labels = sentences(n)
    if empty:
        texts[3] = ""
    table = pa.table({"text": texts, "label": pa.array(labels, pa.int64())})
    if with_names:
        table = table.replace_schema_metadata({"huggingface": class_label("label", NAMES)})
    cut = 3 * n // 4
    pq.write_table(table.slice(0, cut), folder / "train.parquet", row_group_size=11)
    pq.write_table(table.slice(cut), folder / "test.parquet")
    return folder


def class_label(column: str, names: tuple[str, ...]) -> str:
    """The value of the key `huggingface` as the library `datasets` writes it."""
    features = {"text": {"dtype": "string", "_type": "Value"}, column: {"names": list(names), "_type": "ClassLabel"}}
    return json.dumps({"info": {"features": features}})


def write_encoder(folder: Path, family: str, **sizes: Any) -> Path:
    """Two blocks of width 32 with random weights, and a tokenizer trained on `sentences`."""
    import torch
    from transformers import AutoConfig, AutoModel

    tokenizer = _byte_pairs() if family == "roberta" else _word_pieces(family)
    common = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "max_position_embeddings": 64}
    if family == "distilbert":
        shape = {"n_layers": 2, "dim": 32, "hidden_dim": 64, "n_heads": 4}
    else:
        shape = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModel.from_config(AutoConfig.for_model(family, **(common | shape | sizes)))
    for parameter in model.parameters():  # as from_config leaves them, blocks hardly change a state
        parameter.data.mul_(3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _word_pieces(family: str) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import BertTokenizer, DistilBertTokenizer

    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.normalizer = normalizers.BertNormalizer()
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=specials, show_progress=False, limit_alphabet=26)
    trained.train_from_iterator(sentences()[0], trainer)
    kind = DistilBertTokenizer if family == "distilbert" else BertTokenizer
    return kind(vocab=trained.get_vocab(), model_max_length=64)


def _byte_pairs() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import RobertaTokenizer

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    trained.train_from_iterator(sentences()[0], trainer)
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    return RobertaTokenizer(vocab=model["vocab"], merges=merges, model_max_length=62)
