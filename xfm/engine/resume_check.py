"""Whether an OUTPUT belongs to the run that wants to continue it: run.json of then against the recipe of now."""

import json
from collections.abc import Iterable
from typing import Any

from xfm.core.config import differing_fields
from xfm.core.errors import Refused
from xfm.core.ledger import RUN, Receipt
from xfm.core.storage import open_storage

_SHOWN = 20  # differing fields in a message


def earlier_run(data: bytes, place: str) -> dict[str, Any]:
    """The run.json of an OUTPUT.

    Raises:
        Refused: FOREIGN_OUTPUT; some other program's.
    """
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("recipe"), dict) or "fingerprint" not in found:
        raise Refused("FOREIGN_OUTPUT", f"{place}/{RUN} was not written by xfm or is damaged; give another --output")
    return found


def check_output(uri: str, recipe: dict[str, Any]) -> None:
    """Refuses another run's OUTPUT before anything is computed, where the recipe is whole only after the first stages.

    What is known of the recipe is compared now, what the first stages add to it when they have. An OUTPUT that is not
    there, or holds no run yet, is fine.

    Raises:
        Refused: OTHER_RUN or FOREIGN_OUTPUT.
    """
    storage = open_storage(uri)
    found = storage.read(RUN) if storage.names() else None
    if found is None:
        return
    earlier = earlier_run(found, storage.place)["recipe"]
    known = {name: value for name, value in earlier.items() if name in recipe}
    check_same_recipe(known, json.loads(json.dumps(recipe)), [], storage.place, joint=True)


def check_same_recipe(
    old: dict[str, Any], new: dict[str, Any], receipts: Iterable[Receipt], place: str, *, joint: bool = False
) -> None:
    """Lets a run continue another one with the same recipe.

    Files may have been added, repaired or removed since, where nothing was committed from them: `data.files` (digests
    by path), and what else `data` says per file, are compared for the files that committed shards lie in. A `joint`
    result (a fit, a training) depends on all files together: there all are compared.

    Raises:
        Refused: OTHER_RUN; names every field that differs.
    """
    paths = [receipt.path for receipt in receipts]
    used = None if joint else _used_files(old, set(paths))
    differences = differing_fields(_restricted(old, used), _restricted(new, used))
    if differences:
        more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise Refused(
            "OTHER_RUN",
            f"{place} holds a run with other settings or data ({len(paths)} shards committed). Then -> now: "
            f"{'; '.join(differences[:_SHOWN])}{more}. Give another --output, or go back to the old settings",
        )


def _files(recipe: dict[str, Any]) -> dict[str, Any] | None:
    """Digests by path, where the source is made of files."""
    data = recipe.get("data")
    files = data.get("files") if isinstance(data, dict) else None
    return files if isinstance(files, dict) else None


def _used_files(recipe: dict[str, Any], paths: set[str]) -> set[str] | None:
    """Which of the recipe's files the paths mean; None where one cannot be told, so that all are compared.

    A shard may know its file by an absolute path or an address and the recipe by the end of it.
    """
    files, used = _files(recipe), set()
    for path in paths:
        steps = path.split("/")
        names = {"/".join(steps[i:]) for i in range(len(steps))} & (files or {}).keys()
        if not names:
            return None
        used |= names
    return used


def _restricted(recipe: dict[str, Any], used: set[str] | None) -> dict[str, Any]:
    """The recipe with only the used files in everything that `data` says per file."""
    files = _files(recipe)
    if files is None or used is None:
        return recipe
    data = {
        name: {path: entry for path, entry in value.items() if path in used}
        if isinstance(value, dict) and value.keys() <= files.keys()
        else value
        for name, value in recipe["data"].items()
    }
    return recipe | {"data": data}
