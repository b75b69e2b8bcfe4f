"""Values as models write them, made to fit a schema that means the same."""

from collections.abc import Mapping
from typing import Any

from .choices import allows_null, kinds_of, options, part_of, values_of

_WIDEST = 2.0**63
"""Upper bound of the whole numbers that are read as such."""


def fit(value: Any, schema: Any, root: Mapping[str, Any], *, null_is_absent: bool = False) -> Any:
    """Write a value as its schema has it, where JSON has several ways to say the same.

    `5.0` is an integer (JSON Schema 2020-12, validation, 6.1.1). In OpenAI's strict form every property is given, and
    null stands for one that is not.

    Args:
        value: What a model wrote.
        schema: The schema of it, before it was written in strict form.
        root: The schema that references in it refer to.
        null_is_absent: Whether to leave out each property that is null, need not be given, and may not be null.
    """
    if isinstance(value, float):
        return int(value) if _is_integer(value, schema, root) else value
    if not isinstance(value, dict | list):
        return value
    option = _option_for(value, schema, root)
    if isinstance(value, list):
        items, first = option.get("items"), option.get("prefixItems")
        parts = first if isinstance(first, list) and len(first) == len(value) else [items] * len(value)
        return [fit(item, part, root, null_is_absent=null_is_absent) for item, part in zip(value, parts, strict=True)]
    required = option.get("required", ())
    return {
        name: fit(item, part, root, null_is_absent=null_is_absent)
        for name, item in value.items()
        for part in (part_of(option, name),)
        if not null_is_absent or item is not None or name in required or not _is_named(name, option, root)
    }


def _is_named(name: str, option: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
    """Tell whether a schema names a property, and does not let it be null."""
    return name in option.get("properties", {}) and not allows_null(option["properties"][name], root)


def _is_integer(value: float, schema: Any, root: Mapping[str, Any]) -> bool:
    """Tell whether a number with a fraction of zero stands where there are only whole ones."""
    if not value.is_integer() or abs(value) >= _WIDEST:
        return False
    whole = False
    for option in options(schema, root):
        listed = values_of(option)
        if listed is not None:
            whole |= value in listed and not any(isinstance(each, float) for each in listed)
        elif "number" in kinds_of(option):
            return False
        else:
            whole |= "integer" in kinds_of(option)
    return whole


def _option_for(value: dict[str, Any] | list[Any], schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Choose among the schemas that a value may have: the first that its shape fits, else one of its type."""
    if isinstance(value, list):
        found = [option for option in options(schema, root) if "items" in option or "prefixItems" in option]
    else:
        found = [option for option in options(schema, root) if isinstance(option.get("properties", {}), Mapping)]
        found = [each for each in found if _has_shape(value, each)] or [each for each in found if "properties" in each]
    return found[0] if found else {}


def _has_shape(value: dict[str, Any], option: Mapping[str, Any]) -> bool:
    properties = option.get("properties", {})
    closed = option.get("additionalProperties") is False or properties
    if closed and not value.keys() <= properties.keys():
        return False
    return all(_may_be(item, properties.get(name)) for name, item in value.items())


def _may_be(value: Any, schema: Any) -> bool:
    """Tell whether a value is one of those that its schema lists, if it lists any."""
    listed = values_of(schema) if isinstance(schema, Mapping) else None
    return listed is None or value is None or value in listed
