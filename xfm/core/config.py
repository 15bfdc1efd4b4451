"""The base of every config: frozen, strict about unknown keys, and with a fingerprint."""

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen recipe of strings and numbers. It may cross process boundaries; open handles may not."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def recipe(self) -> dict[str, Any]:
        """The fields as plain JSON values, without those (of sections, too) that cannot change a result."""
        at_rest = {name for name, value in self.added_later().items() if getattr(self, name) == value}
        plain = self.model_dump(mode="json", exclude=self.not_in_fingerprint() | at_rest)
        values = {name: getattr(self, name) for name in plain}
        return plain | {name: value.recipe() for name, value in values.items() if isinstance(value, Config)}

    @classmethod
    def not_in_fingerprint(cls) -> set[str]:
        """Fields that say where and how fast, not what: they are left out of the fingerprint."""
        return set()

    @classmethod
    def renamed(cls) -> dict[str, str]:
        """Names that fields once had, and the names they have now: the old ones are refused with the new ones."""
        return {}

    @classmethod
    def added_later(cls) -> dict[str, Any]:
        """Fields that came after runs were made, with the value at which they change nothing.

        New fields at their default are left out of the recipe, so old runs keep their fingerprint.
        """
        return {}


def fingerprint(recipe: dict[str, Any]) -> str:
    """SHA-256 over the canonical JSON of a recipe: same settings, same data and weights, same fingerprint."""
    canonical = json.dumps(recipe, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def differing_fields(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> list[str]:
    """`path: old -> new` for every leaf in which two recipes differ.

    Null and absent are alike: a later version's new field, unset, does not part a run from its earlier half.
    """
    lines: list[str] = []
    for key in sorted(a.keys() | b.keys()):
        path, old, new = f"{prefix}{key}", a.get(key), b.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differing_fields(old, new, f"{path}.")
        elif old != new:
            lines.append(f"{path}: {json.dumps(old)} -> {json.dumps(new)}")
    return lines
