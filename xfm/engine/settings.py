"""One frozen config from a YAML file, the environment and the command line, in rising order of precedence.

Every field of a job's config is a flag with dots (`--source.release`), a key of the YAML file (`source: {release:}`)
and a variable (`XFM_SOURCE__RELEASE`). A section chosen by its `kind` (a source, a backbone) offers the flags of all
its kinds; `--help` says which belong to which. Where a higher layer changes a section's kind, what lower layers said
about the old kind is dropped.
"""

import argparse
import difflib
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from xfm.core.config import Config

ENV_PREFIX = "XFM_"
C = TypeVar("C", bound=Config)


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
    if rest:
        raise UsageError(_unknown(rest[0], known, prog))
    given = {name: value for name, value in vars(flags).items() if value is not None}
    from_yaml = read_yaml(given.pop("config")) if "config" in given else {}
    merged: dict[str, Any] = {}
    for layer in (from_yaml, _from_environ(config, environ), _nest(given)):
        merged = _merge(merged, layer)
    try:
        return config.model_validate(_split_lists(config, merged))
    except ValidationError as error:
        raise UsageError(_explain(error, config, prog)) from None


def read_yaml(path: str) -> dict[str, Any]:
    """A settings file as nested mappings.

    Raises:
        UsageError: no such file, not YAML, or not a mapping.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            content = yaml.safe_load(file)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"--config {path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f"--config {path}: expected `field: value` lines, found {type(content).__name__}")
    return content


def build_parser(config: type[Config], prog: str) -> argparse.ArgumentParser:
    """All fields as flags. Values stay strings: pydantic judges them."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=(config.__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="Exit codes: 0 done; 2 usage; 3 done, but rows or files were quarantined; 4 input or output refused; "
        "5 environment; 143 after SIGTERM.",
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="settings file; the environment and flags override it")
    for name, field in config.model_fields.items():
        models = _models(field.annotation)
        if not models:
            _add_flag(parser, name, field, "")
            continue
        group = parser.add_argument_group(name, field.description)
        seen: dict[str, argparse.Action] = {}
        kinds = [_kind(model) for model in models]
        if any(kinds):
            group.add_argument(f"--{name}.kind", metavar="|".join(kind for kind in kinds if kind), help="required")
        for model, kind in zip(models, kinds, strict=True):
            for inner, inner_field in model.model_fields.items():
                flag = f"{name}.{inner}"
                if inner == "kind":
                    continue
                if flag in seen:
                    seen[flag].help = str(seen[flag].help).replace("]", f", {kind}]", 1)
                else:
                    seen[flag] = _add_flag(group, flag, inner_field, f"[{kind}] " if len(models) > 1 else "")
    return parser


def _add_flag(parser: Any, flag: str, field: FieldInfo, scope: str) -> argparse.Action:
    text = scope + " ".join((field.description or "").split())
    if field.is_required():
        text += " (required)"
    elif field.default is not None and field.default != () and field.annotation is not bool:
        text += f" (default: {_show(field.default)})"
    text = text.replace("%", "%%")
    if field.annotation is bool:
        action: argparse.Action = parser.add_argument(
            f"--{flag}".replace("_", "-"), dest=flag, default=None, action=argparse.BooleanOptionalAction, help=text
        )
    else:
        action = parser.add_argument(f"--{flag}", default=None, metavar=_metavar(field.annotation), help=text)
    return action


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The config classes behind a field: one, or the kinds of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, typing.Annotated):
        return [model for part in get_args(annotation) for model in _models(part)]
    return []


def _kind(model: type[BaseModel]) -> str:
    field = model.model_fields.get("kind")
    return str(get_args(field.annotation)[0]) if field is not None else ""


def _metavar(annotation: Any) -> str:
    if get_origin(annotation) in (Union, types.UnionType):
        return "|".join(dict.fromkeys(_metavar(part) for part in get_args(annotation) if part is not type(None)))
    if get_origin(annotation) is typing.Annotated:
        return _metavar(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return "|".join(str(value) for value in get_args(annotation))
    if get_origin(annotation) is tuple:
        return "A,B,..."
    return {int: "N", float: "X"}.get(annotation, "TEXT")


def _show(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _normalise(word: str, known: set[str]) -> str:
    """`--dry-run` and `--dry_run` are the same flag."""
    flag, equals, value = word.partition("=")
    if not flag.startswith("--") or flag in known:
        return word
    same = [option for option in known if option.replace("-", "_") == flag.replace("-", "_")]
    return same[0] + equals + value if same else word


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        section, _, field = name.partition(".")
        if field:
            nested.setdefault(section, {})[field] = value
        else:
            nested[section] = value
    return nested


def _from_environ(config: type[Config], environ: Mapping[str, str]) -> dict[str, Any]:
    """Variables of known fields only: XFM_ may serve other programs too."""
    flat: dict[str, str] = {}
    for name, field in config.model_fields.items():
        paths = {name}
        for model in _models(field.annotation):
            paths |= {f"{name}.{inner}" for inner in model.model_fields}
        for path in paths:
            variable = ENV_PREFIX + path.replace(".", "__").upper()
            if variable in environ:
                flat[path] = environ[variable]
    return _nest(flat)


def _merge(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    merged = dict(low)
    for name, value in high.items():
        old = merged.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            other_kind = "kind" in value and value["kind"] != old.get("kind", value["kind"])
            merged[name] = value if other_kind else old | value
        else:
            merged[name] = value
    return merged


def _split_lists(config: type[Config], values: dict[str, Any]) -> dict[str, Any]:
    """`a,b` becomes ("a", "b") wherever the field is a tuple and the text is none of its fixed words."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        field = config.model_fields.get(name)
        if field is not None and isinstance(value, dict):
            models = [m for m in _models(field.annotation) if _kind(m) in ("", value.get("kind"))]
            out[name] = _split_lists(typing.cast(type[Config], models[0]), value) if models else value
        elif field is not None and isinstance(value, str) and _takes_tuple(field.annotation, value):
            out[name] = tuple(part.strip() for part in value.split(",") if part.strip())
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


def _unknown(word: str, known: set[str], prog: str) -> str:
    flag = word.partition("=")[0]
    near = difflib.get_close_matches(flag, known, n=1, cutoff=0.6)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"unknown argument {flag}.{hint} `{prog} --help` lists all."


def _explain(error: ValidationError, config: type[Config], prog: str) -> str:
    lines = []
    for problem in error.errors():
        kinds = {kind for field in config.model_fields.values() for m in _models(field.annotation) if (kind := _kind(m))}
        # pydantic puts the chosen kind into the path of a union's field: source.h5ad.path is --source.path.
        path = [str(part) for i, part in enumerate(problem["loc"]) if not (i == 1 and str(part) in kinds)]
        path = [part for part in path if not part.isdigit() and not part.startswith(("literal[", "tuple["))]
        flag = "--" + ".".join(path)
        message, near = problem["msg"], ""
        if problem["type"] == "missing":
            message = "is required"
        elif problem["type"] == "union_tag_not_found":
            kinds_here = [_kind(model) for model in _models(config.model_fields[path[0]].annotation)]
            flag, message = flag + ".kind", "is required: one of " + ", ".join(kinds_here)
        elif problem["type"] == "union_tag_invalid":
            flag = flag + ".kind"
            message = f"unknown {problem['ctx']['tag']!r}; known: {problem['ctx']['expected_tags']}"
        elif problem["type"] == "extra_forbidden":
            message = "is no setting of this job"
            options = {o for action in build_parser(config, prog)._actions for o in action.option_strings}
            close = [] if flag in options else difflib.get_close_matches(flag, options, n=1)
            near = f" Did you mean {close[0]}?" if close else ""
            if flag in options:
                message = f"is no setting of this kind of {path[0]}"
        elif problem["input"] is not None and not isinstance(problem["input"], dict):
            message = f"{message}, found {problem['input']!r}"
        line = f"{flag}: {message}.{near}"
        if line not in lines:
            lines.append(line)
    return "\n".join(lines)


def exit_usage(message: str, prog: str) -> typing.NoReturn:
    """Prints the problem the way argparse does and exits with code 2."""
    sys.stderr.write(f"{prog}: error: {message}\n")
    raise SystemExit(2)
