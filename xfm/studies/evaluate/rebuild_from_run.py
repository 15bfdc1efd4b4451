"""Back from stored embeddings to the cells and the model they were made of: run.json of the embed job as recipes.

A baseline is honest only if it sees the very same cells, and a fresh network is a control only beside the weights it
stands for: both are compared with what the run recorded.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import TypeAdapter, ValidationError

from xfm.core.backbone import BackboneConfig
from xfm.core.config import differing_fields
from xfm.core.errors import Refused
from xfm.core.schema import COUNTS, GENE_IDS
from xfm.core.source import Source
from xfm.core.unions import AnyBackbone, AnySource
from xfm.track.redact import HIDDEN

_SHOWN = 5  # fields in a message


def source_of(origin: dict[str, Any]) -> Source:
    """The source that was embedded, as it was then.

    Raises:
        Refused: NO_ORIGIN, REDACTED, OTHER_DATA, or why the data cannot be read any more.
    """
    source: Source = _built(origin, "source", AnySource)
    _check_same(source.identity, _recorded(origin, "data"), "OTHER_DATA", "the cells that were embedded")
    return source


def backbone_of(origin: dict[str, Any]) -> BackboneConfig:
    """The model that embedded, as it was then.

    Raises:
        Refused: NO_ORIGIN, REDACTED, OTHER_WEIGHTS, or why the checkpoint cannot be read any more.
    """
    backbone: BackboneConfig = _built(origin, "backbone", AnyBackbone)
    _check_same(backbone.identity, _recorded(origin, "weights"), "OTHER_WEIGHTS", "the checkpoint that embedded")
    return backbone


def is_as_given(origin: dict[str, Any]) -> bool:
    """Whether no model embedded: the vectors are those that the source gave."""
    settings = origin.get("settings")
    return isinstance(settings, dict) and "source" in settings and settings.get("backbone", ...) is None


def columns_read(origin: dict[str, Any]) -> tuple[str, ...]:
    """The columns of a source that the model read; none where the record names no model that is known here."""
    try:
        backbone = _built(origin, "backbone", AnyBackbone)
    except Refused:
        return ()
    return tuple(getattr(backbone, "reads", (GENE_IDS, COUNTS)))


def _built(origin: dict[str, Any], section: str, union: Any) -> Any:
    """One section of the settings as a config."""
    settings = origin.get("settings")
    values = settings.get(section) if isinstance(settings, dict) else None
    if not isinstance(values, dict):
        raise Refused(
            "NO_ORIGIN",
            f"the record of the job that made these embeddings names no {section} (settings.{section} in run.json)",
        )
    if hidden := sorted(_redacted(values, section)):
        raise Refused(
            "REDACTED",
            f"settings.{hidden[0]} held a credential, which run.json does not keep, so the {section} cannot be opened "
            "again. Give credentials by the environment (AWS_ACCESS_KEY_ID, HF_TOKEN) instead of inside an address, "
            "and embed again into another --output",
        )
    try:
        return TypeAdapter(union).validate_python(values)
    except ValidationError as problem:
        lines = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in problem.errors()[:_SHOWN])
        raise Refused(
            "NO_ORIGIN",
            f"settings.{section} of the job that made these embeddings is none that this version knows: {lines}. "
            f"It was made with xfm {_version(origin)}",
        ) from problem


def _redacted(value: Any, name: str) -> Iterator[str]:
    """Names of settings that hold the redaction mark."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _redacted(inner, f"{name}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from _redacted(inner, name)
    elif isinstance(value, str) and HIDDEN in value:
        yield name


def _recorded(origin: dict[str, Any], section: str) -> dict[str, Any]:
    recipe = origin.get("recipe")
    found = recipe.get(section) if isinstance(recipe, dict) else None
    if not isinstance(found, dict):
        raise Refused("NO_ORIGIN", f"the record of the job that made these embeddings has no recipe.{section}")
    return found


def _check_same(identity: Callable[[], dict[str, Any]], recorded: dict[str, Any], code: str, what: str) -> None:
    """Compares what is there now with what the run recorded."""
    try:
        # As run.json holds it: tuples are lists there.
        now = json.loads(json.dumps(identity()))
    except Refused as problem:
        raise Refused(problem.code, f"{what} cannot be read any more: {problem.message}") from problem
    except OSError as problem:
        raise Refused("NO_FILES", f"{what} cannot be read any more: {problem}") from problem
    if differences := differing_fields(recorded, now):
        more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise Refused(
            code,
            f"{what} are not what they were. Then -> now: {'; '.join(differences[:_SHOWN])}{more}. Put them back, or "
            "embed again into another --output",
        )


def _version(origin: dict[str, Any]) -> str:
    versions = origin.get("versions")
    return str(versions.get("xfm", "of unknown version")) if isinstance(versions, dict) else "of unknown version"
