"""Settings of an expert as plain values, there and back."""

from __future__ import annotations

import dataclasses
from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar, Self

from amfvi.errors import UsageError, unknown_name

__all__ = ["Settings"]

KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "true or false"),
    "int": ((int,), "a whole number"),
    "float": ((float, int), "a number"),
    "str": ((str,), "a text"),
    "None": ((type(None),), "nothing"),
}
"""Types of plain values by their annotation, and what they are called."""


@dataclass(frozen=True, kw_only=True)
class Settings(ABC):
    """Settings of one family of experts; every field is JSON-serializable.

    Attributes:
        kind: name of the family.
        step_name: what one step of its training curve is, for axis labels.

    Examples:
        >>> from amfvi.experts import RBIG
        >>> RBIG.from_json({"kind": "rbig", "patience": 3}).patience
        3
    """

    kind: ClassVar[str]
    step_name: ClassVar[str] = "step"

    def to_json(self) -> dict[str, Any]:
        """The kind and every setting, as plain JSON values."""
        return {"kind": self.kind, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Rebuild the config that :meth:`to_json` described.

        Raises:
            UsageError: a field this family does not have, or a value of another kind than its
                own.
        """
        known = {field.name: str(field.type) for field in dataclasses.fields(cls)}
        settings = {name: value for name, value in fields.items() if name != "kind"}
        for name, value in settings.items():
            if name not in known:
                raise unknown_name(f"setting of {cls.kind}", name, sorted(known))
            _require_kind(f"{cls.kind}: {name}", known[name], value)
        return cls(**settings)

    def _require_positive(self, *names: str) -> None:
        """Reject settings that are not positive, or not whole where the default is."""
        for name in names:
            value = getattr(self, name)
            if isinstance(value, Integral) and not isinstance(value, bool):  # also numpy's
                object.__setattr__(self, name, value := int(value))
            is_whole = not isinstance(getattr(type(self), name), int) or isinstance(value, int)
            if not value > 0 or not is_whole:
                expected = "positive" if is_whole else "a positive whole number"
                raise UsageError(f"{self.kind}: {name} must be {expected}, found {value!r}")


def _require_kind(what: str, annotation: str, value: Any) -> None:
    """Reject a value of another kind than a field's annotation, such as ``int | None``."""
    kinds = [kind for kind in annotation.split(" | ") if kind in KINDS]
    if kinds and not any(type(value) in KINDS[kind][0] for kind in kinds):
        expected = " or ".join(KINDS[kind][1] for kind in kinds)
        raise UsageError(f"{what} must be {expected}, found {value!r}")
