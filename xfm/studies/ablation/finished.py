"""Which members of a comparison are finished, and whether their numbers are still those that it asks for.

A report alone does not say so: settings, the data and the checkpoint that a member started from may have changed since.
Each member's run.json is held against what its job would start from now; what differs is refused before anything runs,
since numbers of two networks or two data sets must not stand in one table.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from xfm.core.config import differing_fields
from xfm.core.errors import Refused
from xfm.core.ledger import REPORT, RUN
from xfm.core.storage import below, open_storage
from xfm.engine.columns import with_columns
from xfm.engine.learn import all_columns, task_of
from xfm.engine.learn_config import LearnConfig
from xfm.engine.resume_check import earlier_run
from xfm.studies.ablation.plan import Entry

# Of an evaluation whose data come split: they draw nothing there, and its run.json leaves them out (`evaluate.plan`).
UNUSED = ("test", "validation")
SHOWN = 10  # differing fields in a message


def finished_of(entries: Sequence[Entry]) -> set[str]:
    """Keys of those whose report is there and whose numbers are of now.

    Raises:
        Refused: OTHER_RUN, one was made with other settings, from other data or another checkpoint, or what it started
            from is to be made anew; or its source or checkpoint cannot be looked at.
    """
    done: dict[str, dict[str, Any]] = {}
    for entry in entries:
        names = open_storage(entry.config.output).names()
        if RUN not in names:
            continue
        recipe = _recipe(entry.config.output)
        _check(entry, {"config": _used(entry.config.recipe(), recipe)}, recipe)
        if REPORT in names:
            done[entry.key] = recipe
    _check_starts(entries, done)
    known: dict[str, Any] = {}
    for entry in entries:
        if entry.key in done:
            _check_inputs(entry, done[entry.key], known)
    return set(done)


def _recipe(output: str) -> dict[str, Any]:
    """The recipe of an OUTPUT; nothing where there is no run.json."""
    storage = open_storage(output)
    content = storage.read(RUN) if storage.names() else None
    return {} if content is None else dict(earlier_run(content, storage.place)["recipe"])


def _used(now: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of now, without those that drew nothing then."""
    drew = (earlier.get("config") or {}).keys()
    is_split = now.get("split") is not None
    return {name: value for name, value in now.items() if name in drew or not (is_split and name in UNUSED)}


def _check(entry: Entry, now: Mapping[str, Any], earlier: Mapping[str, Any], folder: str = "") -> None:
    """Raises Refused: OTHER_RUN, what is known of now is not what was written down."""
    old = {name: earlier.get(name) for name in now}
    if found := differing_fields(old, json.loads(json.dumps(now))):
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        place = open_storage(below(entry.config.output, folder) if folder else entry.config.output).place
        raise Refused("OTHER_RUN", f"{place} holds member {entry} with other settings, data or weights. Then -> now: "
                      f"{'; '.join(found[:SHOWN])}{more}. Remove the folder of that member, give another --output, or "
                      "go back to the old ones")  # fmt: skip


def _check_starts(entries: Sequence[Entry], done: Mapping[str, Any]) -> None:
    """Raises Refused: OTHER_RUN, a member is to be made anew, and what started from its old checkpoint stays."""
    anew = {entry.key: entry for entry in entries if entry.key not in done}
    waiting = [entry for entry in entries if entry.start is not None]
    stale: list[Entry] = []
    while found := [entry for entry in waiting if entry.start in anew]:
        waiting = [entry for entry in waiting if entry.start not in anew]
        anew |= {entry.key: entry for entry in found}
        stale += [entry for entry in found if entry.key in done]
    if stale:
        named = "; ".join(f"{entry} ({open_storage(entry.config.output).place})" for entry in stale)
        starts = "; ".join(dict.fromkeys(str(anew[entry.start]) for entry in stale if entry.start is not None))
        raise Refused("OTHER_RUN", f"these members are finished, but what they started from is to be made anew "
                      f"({starts}): {named}. Remove their folders too, or bring back the one that they started "
                      "from")  # fmt: skip


def _check_inputs(entry: Entry, earlier: Mapping[str, Any], known: dict[str, Any]) -> None:
    """Raises Refused: OTHER_RUN, or the source or the checkpoint cannot be looked at."""
    from xfm.sources.stored.source import open_embeddings
    from xfm.studies.evaluate.source import EMBEDDINGS, embedding_recipe

    config = entry.config
    try:
        if entry.member.words.job != "evaluate":
            _check(entry, _inputs(config, known), earlier)
        elif config.source is None:
            _check(entry, {"data": open_embeddings(config.embeddings).identity()}, earlier)
        else:
            _check(entry, embedding_recipe(config), _recipe(below(config.output, EMBEDDINGS)), EMBEDDINGS)
    except Refused as problem:
        if problem.code == "OTHER_RUN":
            raise
        said = f"member {entry} is finished, and what it started from cannot be compared with: {problem.message}"
        raise Refused(problem.code, said) from problem


def _inputs(config: LearnConfig, known: dict[str, Any]) -> dict[str, Any]:
    """Data, weights and kind of device, as `plan_shards` writes them down; each is looked at once."""
    task = task_of(config)
    source = with_columns(config.source, all_columns(config, task))
    return {
        "device": "cuda" if config.gpus else "cpu",
        "weights": _identity(known, task.start),
        "data": _identity(known, source),
    }


def _identity(known: dict[str, Any], asked: Any) -> Any:
    key = f"{type(asked).__name__} {asked.model_dump_json()}"
    if key not in known:
        known[key] = asked.identity()
    return known[key]
