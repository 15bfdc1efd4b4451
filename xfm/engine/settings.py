"""One frozen config from a YAML file, the environment and the command line, in rising order of precedence; or from
settings that a program holds (`build`).

Every field of a job's config is a flag with dots (`--source.release`), a key of the YAML file (`source: {release:}`)
and a variable (`XFM_SOURCE__RELEASE`). `--help` lists the kinds of a section (a source, a backbone), and with
`--source.kind h5ad`, or a kind from the file or the environment, the flags of that kind. Where a higher layer changes a
section's kind, what lower layers said about the old kind is dropped.
"""

import sys
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from xfm.core.config import Config
from xfm.core.errors import did_you_mean
from xfm.engine.flags import build_parser, kind_of, models_of

ENV_PREFIX = "XFM_"
C = TypeVar("C", bound=Config)


class _Loader(yaml.SafeLoader):
    """YAML without dates: `release: 2025-11-08` is text, with or without quotes."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as its base declares it
        letter: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class UsageError(ValueError):
    """The command line, the environment or the YAML file cannot be understood. Exit code 2."""


def parse(config: type[C], argv: Sequence[str], environ: Mapping[str, str], prog: str) -> C:
    """Builds the config.

    Raises:
        UsageError: an unknown or malformed setting; the message names the nearest known one.
        SystemExit: after `--help`.
    """
    parser = build_parser(config, prog)
    known = {option for action in parser._actions for option in action.option_strings}
    # allow_abbrev is off, so a typo lands in `rest` instead of matching a longer flag.
    flags, rest = parser.parse_known_args([_normalise(word, known) for word in argv])
    if rest and not flags.help:
        raise UsageError(_unknown(rest[0], known, config, prog))
    given = {name: value for name, value in vars(flags).items() if value is not None}
    asks_for_help = given.pop("help", False)
    settings = named_as_fields(config, read_yaml(given.pop("config"))) if "config" in given else {}
    for layer in (_from_environ(config, environ), nested(given)):
        settings = merge(settings, layer)
    if asks_for_help:
        build_parser(config, prog, _chosen_kinds(config, settings)).print_help()
        raise SystemExit(0)
    return build(config, settings, prog)


def build(config: type[C], settings: Mapping[str, Any], prog: str) -> C:
    """Builds the config from nested settings as a YAML file holds them: words for lists, dashes in names of fields.

    Raises:
        UsageError: as `parse`.
    """
    named = named_as_fields(config, _as_text(settings))
    try:
        return config.model_validate(_split_lists(config, named))
    except ValidationError as error:
        raise UsageError(_explain(error, config, prog)) from None


def read_yaml(path: str) -> dict[str, Any]:
    """A settings file as nested mappings, whose keys are text.

    Raises:
        UsageError: no such file, not YAML, or not a mapping.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            loader = _Loader(file)
            try:
                content = loader.get_single_data()
            finally:
                loader.dispose()
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"--config {path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f"--config {path}: expected `field: value` lines, found {type(content).__name__}")
    return _as_text(content)


def _normalise(word: str, known: set[str]) -> str:
    """`--dry-run` and `--dry_run` are the same flag."""
    flag, equals, value = word.partition("=")
    if not flag.startswith("--") or flag in known:
        return word
    same = [option for option in known if option.replace("-", "_") == flag.replace("-", "_")]
    return same[0] + equals + value if same else word


def named_as_fields(config: type[BaseModel], content: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with `dry-run` written `dry_run`; keys of mappings that are data (a class `T-shirt`) stay."""
    named: dict[str, Any] = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        field = config.model_fields.get(name)
        models = models_of(field.annotation) if field is not None and isinstance(value, dict) else []
        sections = [model for model in models if kind_of(model) in ("", value.get("kind"))] or models
        named[name] = named_as_fields(sections[0], value) if sections else value
    return named


def _as_text(content: Mapping[Any, Any]) -> dict[str, Any]:
    """The same with keys that YAML took for numbers (a class 0) as text."""
    return {str(key): _as_text(value) if isinstance(value, Mapping) else value for key, value in content.items()}


def _chosen_kinds(config: type[Config], values: Mapping[str, Any]) -> dict[str, str]:
    """The kind of each section that names one.

    Raises:
        UsageError: there is no such kind.
    """
    chosen: dict[str, str] = {}
    for name, field in config.model_fields.items():
        kinds = [kind_of(model) for model in models_of(field.annotation)]
        kind = values[name].get("kind") if kinds and isinstance(values.get(name), dict) else None
        if kind is not None and kind not in kinds:
            raise UsageError(_unknown_kind(f"--{name}", str(kind), kinds))
        if kind is not None:
            chosen[name] = kind
    return chosen


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted names (`task.lr`) as nested ones."""
    found: dict[str, Any] = {}
    for name, value in flat.items():
        section, _, field = name.partition(".")
        if field:
            found.setdefault(section, {})[field] = value
        else:
            found[section] = value
    return found


def _from_environ(config: type[Config], environ: Mapping[str, str]) -> dict[str, Any]:
    """Variables of known fields only: XFM_ may serve other programs too."""
    flat: dict[str, str] = {}
    for name, field in config.model_fields.items():
        paths = {name}
        for model in models_of(field.annotation):
            paths |= {f"{name}.{inner}" for inner in model.model_fields}
        for path in paths:
            variable = ENV_PREFIX + path.replace(".", "__").upper()
            if variable in environ:
                flat[path] = environ[variable]
    return nested(flat)


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Settings over settings, section by section; another kind of section drops what was said of the old kind."""
    merged = dict(low)
    for name, value in high.items():
        old = merged.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            other_kind = "kind" in value and value["kind"] != old.get("kind", value["kind"])
            merged[name] = dict(value) if other_kind else merge(old, value)
        else:
            merged[name] = value
    return merged


def _split_lists(config: type[Config], values: dict[str, Any]) -> dict[str, Any]:
    """`a,b` becomes ("a", "b") and 3 becomes ("3",) where the field is a tuple and has no such fixed word."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        field = config.model_fields.get(name)
        if field is not None and isinstance(value, dict):
            models = [m for m in models_of(field.annotation) if kind_of(m) in ("", value.get("kind"))]
            out[name] = _split_lists(typing.cast(type[Config], models[0]), value) if models else value
        elif field is not None and isinstance(value, str | int) and _takes_tuple(field.annotation, str(value)):
            out[name] = tuple(part.strip() for part in str(value).split(",") if part.strip())
        else:
            out[name] = value
    return out


def _takes_tuple(annotation: Any, text: str) -> bool:
    if get_origin(annotation) in (Union, types.UnionType):
        parts = get_args(annotation)
        words = {word for part in parts if get_origin(part) is Literal for word in get_args(part)}
        return text not in words and any(_takes_tuple(part, text) for part in parts)
    if get_origin(annotation) is typing.Annotated:
        return _takes_tuple(get_args(annotation)[0], text)
    return get_origin(annotation) is tuple


def _unknown(word: str, known: set[str], config: type[Config], prog: str) -> str:
    flag = word.partition("=")[0]
    return f"unknown argument {flag}.{_meant(flag, known, config)} See `{prog} --help`."


def _explain(error: ValidationError, config: type[Config], prog: str) -> str:
    kinds = {kind_of(model) for field in config.model_fields.values() for model in models_of(field.annotation)}
    lines: list[str] = []
    for problem in error.errors():
        # pydantic puts the chosen kind into the path of a union's field: source.h5ad.path is --source.path.
        path = [str(part) for i, part in enumerate(problem["loc"]) if not (i == 1 and str(part) in kinds)]
        path = [part for part in path if not part.isdigit() and not part.startswith(("literal[", "tuple["))]
        line = _describe(problem, path, config, prog)
        if line not in lines:
            lines.append(line)
    return "\n".join(lines)


def _describe(problem: Any, path: list[str], config: type[Config], prog: str) -> str:
    """One problem as pydantic reports it, in the words of the command line."""
    flag, what = "--" + ".".join(path), problem["type"]
    field = config.model_fields.get(path[0]) if len(path) == 1 else None
    choices = [kind_of(model) for model in models_of(field.annotation)] if field is not None else []
    if what == "union_tag_not_found" or (what == "missing" and len(choices) > 1):
        return f"{flag}.kind: is required: one of {', '.join(choices)}."
    if what == "union_tag_invalid":
        return _unknown_kind(flag, problem["ctx"]["tag"], choices)
    if what == "missing":
        return f"{flag}: is required."
    if what == "extra_forbidden":
        known = {option.replace("-", "_") for option in _options(config, prog)}
        if flag.replace("-", "_") in known:
            return f"{flag}: is no setting of this kind of {path[0]}."
        return f"{flag}: is no setting of this job.{_meant(flag, _options(config, prog), config)}"
    if what == "value_error":  # of the whole config, it names its fields itself
        return (f"{flag}: " if path else "") + f"{problem['ctx']['error']}."
    shown = problem["input"] is not None and not isinstance(problem["input"], dict)
    return f"{flag}: {problem['msg']}" + (f", found {problem['input']!r}." if shown else ".")


def _unknown_kind(section: str, kind: str, known: Collection[str]) -> str:
    return f"{section}.kind: unknown {kind!r}; known: {', '.join(known)}.{did_you_mean(kind, known)}"


def _options(config: type[Config], prog: str) -> list[str]:
    return [option for action in build_parser(config, prog)._actions for option in action.option_strings]


def _meant(flag: str, known: Collection[str], config: type[Config]) -> str:
    """What a flag that is none was called since, or the nearest one."""
    now = config.renamed().get(flag.removeprefix("--").replace("-", "_"))
    return f" It is --{now} now." if now else did_you_mean(flag, known)


def exit_usage(message: str, prog: str) -> typing.NoReturn:
    """Prints the problem the way argparse does and exits with code 2."""
    sys.stderr.write(f"{prog}: error: {message}\n")
    raise SystemExit(2)
