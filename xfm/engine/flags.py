"""The fields of a job's config as command-line flags with help."""

import argparse
import types
import typing
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from xfm.core.config import Config


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
        models = models_of(field.annotation)
        if not models:
            _add_flag(parser, name, field, "")
            continue
        group = parser.add_argument_group(name, field.description)
        seen: dict[str, argparse.Action] = {}
        kinds = [kind_of(model) for model in models]
        if any(kinds):
            only = f"(default: {kinds[0]})" if len(kinds) == 1 else "(required)"
            only = only if field.is_required() or field.default is not None else "(none by default)"
            group.add_argument(f"--{name}.kind", metavar="|".join(kinds), help=f"which {name} {only}")
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


def _show(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
