"""Classes as sentences: the templates and names that a text tower reads, and how their vectors become one a class.

Ensembling as in CLIP_benchmark, after Radford et al., ICML 2021, section 3.1.4: every text's vector has norm 1, a class
gets the mean over its texts, and that mean is given norm 1 again. Texts of a class's own, without templates, are those
of Pratt et al., ICCV 2023 (CuPL).
"""

# Shapes: K classes, M texts, P width of the shared space.

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from xfm.core.config import Config
from xfm.core.errors import Refused

if TYPE_CHECKING:
    from torch import Tensor

SLOT = "{}"
ONE_TEMPLATE = "a photo of a {}."  # what papers report as the score without ensembling
SHOWN = 5  # names in a message


@dataclass(frozen=True, slots=True)
class Prompts:
    """What stands for each class."""

    values: tuple[str, ...]  # (K,) as the label's column has them; a class's number is its place here
    names: tuple[str, ...]  # (K,) as people and prompts call them
    texts: tuple[tuple[str, ...], ...]  # (K,) sentences of each class, at least one

    def with_template(self, template: str) -> "Prompts":
        """The same classes with one sentence each."""
        return Prompts(self.values, self.names, tuple((template.replace(SLOT, name),) for name in self.names))

    def to_json(self) -> dict[str, Any]:
        """Plain values, for files."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Prompts":
        """What `to_json` gave; KeyError or TypeError for anything else."""
        texts = tuple(tuple(map(str, own)) for own in content["texts"])
        return cls(tuple(map(str, content["values"])), tuple(map(str, content["names"])), texts)


class ClassPrompts(Config):
    """Which column holds the class of a row, and what a text tower reads for each class."""

    label: str = "label"
    """Column of the classes."""

    classes: tuple[str, ...] | dict[str, str] | None = None
    """The classes: values of the label, or `value: readable name` in YAML (VALUE=NAME,... on the command line); by
    default the values that are found. A value without a name is its own, with blanks for underscores."""

    templates: tuple[str, ...] = Field((ONE_TEMPLATE,), min_length=1)
    """Sentences with {} for the name of the class; several are averaged. On the command line commas part them: write
    those that hold one into a YAML file."""

    class_templates: dict[str, tuple[str, ...]] | None = None
    """Sentences of a class's own in place of the templates, by its value; {} in them is its name. In YAML."""

    @field_validator("templates")
    @classmethod
    def _one_slot(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            if template.count(SLOT) != 1:
                raise ValueError(
                    f"{template!r} needs exactly one {SLOT} for the name of the class, e.g. {ONE_TEMPLATE!r}; on the "
                    "command line a comma ends a template"
                )
        return templates

    @field_validator("class_templates")
    @classmethod
    def _some_text(cls, own: dict[str, tuple[str, ...]] | None) -> dict[str, tuple[str, ...]] | None:
        for value, texts in (own or {}).items():
            if not texts or not all(text.strip() for text in texts):
                raise ValueError(f"class {value!r} needs at least one sentence, and none that is empty")
        return own

    def listed(self) -> dict[str, str] | None:
        """Readable name by value, in the order given; None where the classes are those that are found.

        Raises:
            Refused: DUPLICATE_CLASSES or NO_NAME.
        """
        if self.classes is None:
            return None
        if isinstance(self.classes, Mapping):
            return _named(list(self.classes.items()))
        pairs = [value.partition("=") for value in self.classes]
        return _named([(value.strip(), name.strip() if equals else readable(value)) for value, equals, name in pairs])

    def prompts(self, found: Sequence[str] = ()) -> Prompts:
        """The sentences of every class.

        Args:
            found: values of the label, where the config lists no classes; sorted here.

        Raises:
            Refused: FEW_CLASSES, NO_NAME, UNKNOWN_CLASS for sentences of a class that is none, DUPLICATE_CLASSES for
                classes that would be asked for by the same sentences.
        """
        named = self.listed()
        if named is None:
            named = _named([(value, readable(value)) for value in sorted(set(found))])
        if len(named) < 2:
            raise Refused("FEW_CLASSES", f"--label {self.label}: two classes or more are needed, found "
                          f"{', '.join(named) or 'none'}")  # fmt: skip
        own = self.class_templates or {}
        if strangers := [value for value in own if value not in named]:
            shown = ", ".join(list(named)[:SHOWN])
            raise Refused("UNKNOWN_CLASS", f"class_templates names {strangers[0]!r}, which is no class; the classes "
                          f"are {shown}{', ...' if len(named) > SHOWN else ''}")  # fmt: skip
        texts = tuple(
            tuple(text.replace(SLOT, name) for text in own.get(value, self.templates)) for value, name in named.items()
        )
        _check_distinct(list(named), texts)
        return Prompts(tuple(named), tuple(named.values()), texts)


def readable(value: str) -> str:
    """A value as a name: underscores are blanks."""
    return " ".join(value.replace("_", " ").split())


def ensembled(vectors: "Tensor", counts: Sequence[int]) -> "Tensor":
    """One unit vector a class from the vectors of its texts.

    Args:
        vectors: (M, P) of all texts, class after class; of any norm but 0.
        counts: (K,) texts of each class; they sum to M.

    Returns:
        (K, P).
    """
    import torch
    from torch.nn import functional

    unit = functional.normalize(vectors, dim=-1)
    means = torch.stack([own.mean(dim=0) for own in torch.split(unit, list(counts))])
    return functional.normalize(means, dim=-1)


def _named(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    named: dict[str, str] = {}
    for value, name in pairs:
        if value in named:
            raise Refused("DUPLICATE_CLASSES", f"the value {value!r} stands twice in the class list: as "
                          f"{named[value]!r} and as {name!r}")  # fmt: skip
        if not name.strip():
            raise Refused("NO_NAME", f"class {value!r} has no name to put into a template; give one as VALUE=NAME")
        named[value] = " ".join(name.split())
    return named


def _check_distinct(values: Sequence[str], texts: Sequence[tuple[str, ...]]) -> None:
    """Capitals count for nothing: a CLIP tokenizer reads small letters."""
    seen: dict[tuple[str, ...], str] = {}
    for value, own in zip(values, texts, strict=True):
        key = tuple(sorted({" ".join(text.casefold().split()) for text in own}))
        if key in seen:
            raise Refused(
                "DUPLICATE_CLASSES",
                f"classes {seen[key]!r} and {value!r} are asked for by the same words ({own[0]!r}), so that no model "
                "could tell them apart: give one of them another name in `classes`, or sentences of its own in "
                "`class_templates`",
            )
        seen[key] = value
