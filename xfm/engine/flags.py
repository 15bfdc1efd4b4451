"""The fields of a job's config as command-line flags with help.

A section whose `kind` chooses among several configs (source, backbone, task) takes the flags of all its kinds. Its help
lists the kinds; the flags of a kind are shown where that kind is chosen.
"""

import argparse
import re
import shutil
import textwrap
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from xfm.core.config import Config

EXIT_CODES = (
    "Exit codes: 0 done; 2 usage; 3 done, but rows or files were quarantined; 4 input or output refused; "
    "5 environment; 143 after SIGTERM."
)
USAGE = "usage: "  # argparse puts it in front
_FIRST_SENTENCE = re.compile(r".+?\.(?=\s+[A-Z]|$)")


def build_parser(config: type[Config], prog: str, chosen: Mapping[str, str] | None = None) -> argparse.ArgumentParser:
    """All fields as flags. Values stay strings: pydantic judges them. `--help` is a flag like the others; it shows the
    flags of the kinds that are `chosen`, by section, and of no others."""
    chosen = chosen or {}
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=_usage(config, prog, chosen),
        description=_wrapped(config.__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="store_true", default=None, help="show this text and stop")
    parser.add_argument("--config", metavar="FILE.yaml", help="settings file; the environment and flags override it")
    listed: dict[tuple[str, ...], str] = {}  # kinds, and the section that lists them
    for name, field in config.model_fields.items():
        if models_of(field.annotation):
            _add_section(parser, name, field, chosen.get(name), listed)
        else:
            _add_flag(parser, name, field)
    hints = [
        f"`{prog} --{name}.kind {kinds[0]} --help` shows the settings of a kind." for kinds, name in listed.items()
    ]
    parser.epilog = "\n".join([*hints[:1], _wrapped(EXIT_CODES)])
    return parser


def _add_section(
    parser: argparse.ArgumentParser, name: str, field: FieldInfo, chosen: str | None, listed: dict[tuple[str, ...], str]
) -> None:
    """Adds the flags of all kinds to a parser, and the help of the chosen or only kind, else a list of the kinds."""
    by_kind = {kind_of(model): model for model in models_of(field.annotation)}
    kinds = tuple(by_kind)
    shown = by_kind[kinds[0]] if len(kinds) == 1 else by_kind.get(chosen or "")
    text = [_wrapped(field.description or "")]
    if shown is None and kinds in listed:
        text.append(f"Kinds: as of {listed[kinds]}.")
    elif shown is None:
        text += ["Kinds:", *kind_lines(by_kind)]
        listed[kinds] = name
    elif len(kinds) > 1:
        text.append(_wrapped(f"{chosen}: {first_sentence(shown)}"))
    group = parser.add_argument_group(name, "\n".join(text))
    if any(kinds):
        others = ", ".join(kind for kind in kinds if kind != chosen)
        which = f"{chosen}; others: {others}" if chosen and others else f"which kind {_unless_given(field, kinds)}"
        group.add_argument(f"--{name}.kind", metavar="KIND", help=which)
    own = {} if shown is None else shown.model_fields
    hidden = {inner: each for model in by_kind.values() for inner, each in model.model_fields.items()}
    for inner, each in (own | hidden | own).items():  # the chosen kind's in front, and as it describes them
        if inner != "kind":
            _add_flag(group, f"{name}.{inner}", each, is_shown=inner in own)


def _unless_given(field: FieldInfo, kinds: tuple[str, ...]) -> str:
    if field.is_required():
        return "(required)" if len(kinds) > 1 else f"(default: {kinds[0]})"
    return "(none by default)" if field.default is None else f"(default: {getattr(field.default, 'kind', kinds[0])})"


def _add_flag(parser: Any, flag: str, field: FieldInfo, *, is_shown: bool = True) -> None:
    text = " ".join((field.description or "").split())
    if _is_mapping(field.annotation):
        text += " (in --config only)"
    if field.is_required():
        text += " (required)"
    elif field.default_factory is None and field.default not in (None, ()) and field.annotation is not bool:
        text += f" (default: {_show(field.default)})"
    text = text.replace("%", "%%") if is_shown else argparse.SUPPRESS
    if field.annotation is bool:
        parser.add_argument(
            f"--{flag}".replace("_", "-"), dest=flag, default=None, action=argparse.BooleanOptionalAction, help=text
        )
    else:
        parser.add_argument(f"--{flag}", default=None, metavar=_metavar(field.annotation), help=text)


def _usage(config: type[Config], prog: str, chosen: Mapping[str, str]) -> str:
    """What must be given, and how the rest is."""
    words = [prog]
    for name, field in config.model_fields.items():
        models = models_of(field.annotation)
        model = next((model for model in models if name in chosen and kind_of(model) == chosen[name]), None)
        if model is not None:
            words.append(f"--{name}.kind {chosen[name]}")
            needed = ((inner, each) for inner, each in model.model_fields.items() if each.is_required())
            words += [f"--{name}.{inner} {_metavar(each.annotation)}" for inner, each in needed]
        elif field.is_required() and len(models) != 1 and not _is_mapping(field.annotation):
            words.append(f"--{name}.kind KIND" if models else f"--{name} {_metavar(field.annotation)}")
    words += ["[--config FILE.yaml]", "[--SETTING VALUE ...]"]
    kept = " ".join(word.replace(" ", "\0") for word in words)  # a flag and its value stay on one line
    return _wrapped(USAGE + kept, " " * len(USAGE)).removeprefix(USAGE).replace("\0", " ")


def first_sentence(model: type[BaseModel]) -> str:
    """What a kind is: the first sentence of its docstring, empty where it has none."""
    text = " ".join((model.__doc__ or "").split())
    found = _FIRST_SENTENCE.match(text)
    return found[0] if found else text


def kind_lines(by_kind: Mapping[str, type[BaseModel]]) -> list[str]:
    """A list of kinds for the terminal: name and first sentence of each, sentences below each other."""
    indent = max(map(len, by_kind), default=0) + 4
    return [
        _wrapped(first_sentence(model), " " * indent, f"  {kind}".ljust(indent)) for kind, model in by_kind.items()
    ]  # fmt: skip


def _wrapped(text: str, indent: str = "", first: str = "") -> str:
    """Text in lines as wide as the terminal, the first one behind `first`, all others behind `indent`."""
    # argparse keeps two columns free and indents sections by two.
    columns = max(40, shutil.get_terminal_size().columns - 4)
    return textwrap.fill(
        " ".join(text.split()), columns, initial_indent=first, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    ) or first.rstrip()  # fmt: skip


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """The config classes behind a field: one, or the kinds of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, typing.Annotated):
        return [model for part in get_args(annotation) for model in models_of(part)]
    return []


def kind_of(model: type[BaseModel]) -> str:
    """The word that chooses this config in a union; empty where there is no choice."""
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


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is dict


def _show(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
