"""Keeps secrets out of records.

Three rules, each enough on its own: a setting whose name says secret, credentials inside a URI, and the value of
any environment variable whose name says secret, wherever it turns up.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
# "cls_token", "pad_token" and "obs_key" name a word or a column, not a secret.
SECRET = {"token", "password", "passwd", "pwd", "passphrase", "secret", "secrets", "credential", "credentials"}
KEY = {"key", "keys", "apikey", "accesskey"}
VOCABULARY = {"cls", "pad", "mask", "eos", "bos", "sep", "unk", "special"}
COLUMN = {"obs", "var", "uns", "obsm", "layer", "label", "batch", "time", "group", "gene", "row", "cell", "sample"}
COLUMN |= {"donor", "sort", "shard", "split", "join", "index", "neighbors"}
SHELL = {"PWD", "OLDPWD"}  # the current directory, not a password
PLACE = {"path", "file", "dir", "folder"}

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_USERINFO = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s:]*:[^/\s]*@|(https?://)[^/\s]+@")
_QUERY = re.compile(
    r"([?&;][^=&;\s]*(?:token|password|passwd|secret|signature|sig|key|credential)[^=&;\s]*=)[^&;\s#]+", re.IGNORECASE
)
_KNOWN = re.compile(r"\b(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|AKIA[A-Z0-9]{12,})|(?<=Bearer )\S+")
_MIN_LENGTH = 8  # shorter values of secret variables ("1", "true") would blot out half the records


def names_secret(name: str) -> bool:
    """Whether a setting's or variable's name says that its value is a secret."""
    words = [word.lower() for word in _WORDS.findall(name.rsplit(".", 1)[-1])]
    if not words or words[-1] in PLACE:
        return False
    if SECRET & set(words):
        return not VOCABULARY & set(words)
    return bool(KEY & set(words)) and not COLUMN & set(words)


def redact_text(text: str) -> str:
    """The text without credentials in URIs and without the values of secret environment variables."""
    text = _USERINFO.sub(lambda match: f"{match[1] or match[2]}{HIDDEN}@", text)
    text = _QUERY.sub(rf"\1{HIDDEN}", text)
    text = _KNOWN.sub(HIDDEN, text)
    for name, value in os.environ.items():
        if len(value) >= _MIN_LENGTH and value in text and name not in SHELL and names_secret(name):
            text = text.replace(value, HIDDEN)
    return text


def redact(value: Any, name: str = "") -> Any:
    """A JSON-like value, to any depth, with secrets replaced by `***`. Numbers, booleans and None pass unchanged.

    Its name decides by itself where the value is a string or a list.
    """
    if isinstance(value, Mapping):
        return {str(key): redact(inner, str(key)) for key, inner in value.items()}
    if value is None or isinstance(value, bool | int | float):
        return value
    if names_secret(name):
        return HIDDEN
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(inner) for inner in value]
    return redact_text(str(value))
