"""Settings of an expert as plain values, there and back."""

from __future__ import annotations

import dataclasses
from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from amfvi.errors import UsageError, unknown_name

__all__ = ["Settings"]


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
                default.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        settings = {name: value for name, value in fields.items() if name != "kind"}
        for name, value in settings.items():
            if name not in known:
                raise unknown_name(f"setting of {cls.kind}", name, sorted(known))
            _require_kind(f"{cls.kind}: {name}", getattr(cls, name, None), value)
        return cls(**settings)

    def _require_positive(self, *names: str) -> None:
        """Reject settings that are not positive, or not whole where the default is."""
        for name in names:
            value = getattr(self, name)
            is_whole = not isinstance(getattr(type(self), name), int) or isinstance(value, int)
            if not value > 0 or not is_whole:
                expected = "positive" if is_whole else "a positive whole number"
                raise UsageError(f"{self.kind}: {name} must be {expected}, found {value!r}")


def _require_kind(what: str, default: Any, value: Any) -> None:
    """Reject a value of another kind than the default, where that is a number or a text."""
    expected: tuple[type, ...] = (int, float) if isinstance(default, float) else (type(default),)
    is_plain = isinstance(default, str | int | float)
    if is_plain and (
        not isinstance(value, expected) or isinstance(value, bool) != isinstance(default, bool)
    ):
        name = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        raise UsageError(f"{what} must be {name[type(default)]}, found {value!r}")
