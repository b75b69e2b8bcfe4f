"""Filters on the attributes of files.

Source: openai 3.54.0, `types/shared/comparison_filter.py`, `types/shared/compound_filter.py` (2026-11). Where a file
lacks the attribute, or its type is another, only `ne` and `nin` hold: the real service's ways are not published.
"""

from collections.abc import Callable, Mapping
from operator import ge, gt, le, lt
from typing import Any, Literal, TypeAlias

import msgspec

Attribute: TypeAlias = str | bool | int | float

_DEEPEST = 10
_ORDER: dict[str, Callable[[Any, Any], Any]] = {"gt": gt, "gte": ge, "lt": lt, "lte": le}


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A comparison, or several filters of which all or any must hold.

    Raises:
        ValueError: It lacks what its type needs, or has what it has no use for.
    """

    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "and", "or"]
    key: str | None = None
    value: Attribute | list[Attribute] | None = None
    filters: list["Filter"] | None = None

    def __post_init__(self) -> None:
        if self.type in {"and", "or"}:
            if self.filters is None or self.key is not None or self.value is not None:
                raise ValueError(f"a filter of type '{self.type}' has 'filters', and neither 'key' nor 'value'")
        elif self.key is None or self.value is None or self.filters is not None:
            raise ValueError(f"a filter of type '{self.type}' has 'key' and 'value', and no 'filters'")
        elif (self.type in {"in", "nin"}) is not isinstance(self.value, list):
            raise ValueError("the value of 'in' and 'nin' is a list, any other is not")
        if self.depth() > _DEEPEST:
            raise ValueError(f"filters are nested more than {_DEEPEST} deep")

    def depth(self) -> int:
        """The depth of nested filters in it."""
        return 1 + max((each.depth() for each in self.filters or ()), default=0)

    def holds(self, attributes: Mapping[str, Attribute]) -> bool:
        """Tell whether a file with these attributes passes."""
        match self.type:
            case "and":
                return all(each.holds(attributes) for each in self.filters or ())
            case "or":
                return any(each.holds(attributes) for each in self.filters or ())
            case _:
                return _compare(self.type, attributes.get(self.key or ""), self.value)


def _compare(operator: str, own: Attribute | None, value: Any) -> bool:
    match operator:
        case "eq" | "ne":
            return _same(own, value) is (operator == "eq")
        case "in" | "nin":
            return any(_same(own, each) for each in value) is (operator == "in")
        case _:
            comparable = _ordered(own) and _ordered(value) and isinstance(own, str) is isinstance(value, str)
            return comparable and bool(_ORDER[operator](own, value))


def _same(own: Attribute | None, value: Attribute) -> bool:
    """Tell whether two values are equal and of one kind: in Python, True is 1."""
    return own == value and isinstance(own, bool) is isinstance(value, bool)


def _ordered(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)
