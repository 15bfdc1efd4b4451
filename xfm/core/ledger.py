"""The lines of manifest.jsonl and quarantine.jsonl, and which of them still hold after a crash."""

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from xfm.core.errors import Refused

logger = logging.getLogger(__name__)

RUN, MANIFEST, QUARANTINE, PARTS, REPORT = "run.json", "manifest.jsonl", "quarantine.jsonl", "parts", "report.json"
Line = TypeVar("Line", "Receipt", "Refusal")


@dataclass(frozen=True, slots=True)
class Receipt:
    """One committed shard; a line of the manifest."""

    key: str  # the shard
    rows: int  # rows in the part, refused ones not counted
    sha256: str  # of the part file
    bytes: int  # length of the part file; tells a torn one without reading it
    seconds: float  # time the successful attempt took
    attempts: int  # how often it took, as the engine counts
    refused: int = 0  # lines of this shard in the quarantine; filled in by `Output.record`
    path: str = ""  # input file the shard was read from, absolute or as in the recipe's `data.files`; else empty


@dataclass(frozen=True, slots=True)
class Refusal:
    """One row or whole shard that was not turned into numbers; a line of the quarantine."""

    shard: str  # key of the shard
    key: str  # row_id of the row, or the file or shard where all of it is refused
    stage: str  # where it was found out, e.g. "read".
    code: str  # as in `Refused`
    message: str  # why, for people


def checked_name(name: str) -> str:
    """The name, if it can be a file of its own.

    Raises:
        Refused: BAD_NAME; it would leave its folder, hide, or be too long.
    """
    if not name or len(name.encode()) > 200 or name.startswith(".") or re.search(r"[/\\\x00-\x1f\x7f]", name):
        raise Refused("BAD_NAME", f"{name[:80]!r} cannot be a file name in OUTPUT: it needs 1 to 200 bytes, no slash, "
                      "no control character and no leading dot")  # fmt: skip
    return name


def part_name(key: str) -> str:
    """Where the rows of a shard lie, relative to OUTPUT."""
    return f"{PARTS}/{checked_name(key)}.parquet"


def distinct(shard: str, refusals: Sequence[Refusal]) -> list[Refusal]:
    """Each refusal once, in order.

    Raises:
        ValueError: one belongs to another shard.
    """
    if strangers := [refusal for refusal in refusals if refusal.shard != shard]:
        raise ValueError(f"a refusal of another shard came with {shard}: {strangers[0]}")
    return list(dict.fromkeys(refusals))


def render(lines: Iterable[Receipt | Refusal]) -> bytes:
    """One JSON object a line."""
    return "".join(json.dumps(asdict(line)) + "\n" for line in lines).encode()


def parse(data: bytes | None, kind: type[Line], name: str) -> list[Line]:
    """Lines as far as they are whole; a torn one counts as never written."""
    found: list[Line] = []
    for line in (data or b"").splitlines(keepends=True):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("no line end")
            found.append(kind(**json.loads(line)))
        except (ValueError, TypeError) as problem:
            logger.warning("%s: a line that is not whole is dropped, its shard is done again: %s", name, problem)
    return found


def intact(
    manifest: bytes | None, quarantine: bytes | None, sizes: Mapping[str, int]
) -> tuple[dict[str, Receipt], dict[str, list[Refusal]]]:
    """Committed shards with their refusals; what is missing a part, bytes of it, or a refusal is left out.

    `sizes` are the bytes of the files in parts/, by name.
    """
    refusals: dict[str, list[Refusal]] = {}
    for refusal in dict.fromkeys(parse(quarantine, Refusal, QUARANTINE)):
        refusals.setdefault(refusal.shard, []).append(refusal)
    receipts = {}
    for receipt in parse(manifest, Receipt, MANIFEST):
        size, lines = sizes.get(f"{receipt.key}.parquet"), len(refusals.get(receipt.key, []))
        if (size, lines) == (receipt.bytes, receipt.refused):
            receipts[receipt.key] = receipt
        else:
            logger.warning("shard %s is done again: its part has %s of %d bytes, the quarantine %d of %d lines",
                           receipt.key, size, receipt.bytes, lines, receipt.refused)  # fmt: skip
    return receipts, {key: refusals[key] for key in receipts if key in refusals}
