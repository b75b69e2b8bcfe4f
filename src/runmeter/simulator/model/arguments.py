"""Instances of JSON schemas, made up from the words of a text: arguments for a function, or structured output.

The same schema and text always give the same instance. It has the required properties, or all if none is required.
"""

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from zlib import crc32

from .questions import question, topics
from .words import REQUEST, words

_NUMBER = re.compile(r"(?<![\w.-])-?\d+(?:\.\d+)?(?![\w-])")
_CODE = re.compile(r"\b(?=[\w-]*\d)[A-Za-z][\w-]*\b")
_FORMATS = {
    "date": "2026-11-22",
    "date-time": "2026-11-22T09:30:00Z",
    "time": "09:30:00",
    "duration": "PT30M",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "3f2b1c52-6c1d-4e0a-9d5e-5d0c8b6f7a10",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "hostname": "example.com",
}
_QUESTION = re.compile("query|question|text|prompt|message|content|task|instruction|description|request")
"""Part of a property's name: its value is what the text asks."""
_REASON = re.compile("reason|rationale|explanation|summary|answer|note")
"""Part of a property's name: its value is a sentence of the simulator's own."""
_FEEDBACK = re.compile("feedback|comment|critique|verdict|suggestion")
"""Part of a property's name: its value is a remark."""
_WORDS = re.compile("words|terms|keyword|topic|phrase|search")
"""Part of a property's name: its value is what the text is about."""
_TITLE = re.compile("title|heading|subject|label")
"""Part of a property's name: its value is one of the things that the text is about."""
_NUMBERED = ("id", "number", "code", "key", "reference")
"""Ends of a property's name: its value has digits, if the text has any."""
REMARK = "You could say it in fewer words."
"""A remark on any answer that is to be judged."""
_DEEPEST = 6
"""Schemas may contain themselves."""
_MOST_VALUES = 1_000
"""Upper bound on values of an instance, where lists and what contains itself may be cut: schemas multiply quickly."""
_MOST_ITEMS = 100
_LONGEST = 1_000
"""Characters of a string, whatever its `minLength`."""


def synthesise(schema: Mapping[str, Any], text: str, chance: int = 0) -> Any:
    """Make up an instance of a schema. `chance` decides with the text on what is true."""
    return _Synthesis(schema, text, chance).value(schema, "", 0)


class _Synthesis:
    """An instance in the making: every string takes the text's next word, every number its next number."""

    def __init__(self, root: Mapping[str, Any], text: str, chance: int) -> None:
        self._root = root
        self._text = text
        self._chance = crc32(text.encode(errors="replace"), chance)
        self._left = _MOST_VALUES
        self._question = question(text)
        self._topics = topics(text, 5)
        plain = [word for word in words(text)[:200] if not REQUEST.fullmatch(word)]
        self._words = plain or words(text)[:200] or ["example"]
        self._next_word = itertools.cycle(self._words)
        self._next_topic = itertools.cycle(self._topics or self._words)
        self._title = ""
        self._asked = False
        self._numbers = iter(_NUMBER.findall(text[:2_000]))
        self._codes = iter(_CODE.findall(text[:2_000]))

    def value(self, schema: Any, name: str, depth: int) -> Any:
        """Make up an instance of a schema that belongs to a property of this name."""
        schema = self._resolve(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._one_of(schema["enum"])
        makers: dict[str, Callable[[], Any]] = {
            "object": lambda: self._object(schema, depth),
            "array": lambda: self._array(schema, name, depth),
            "integer": lambda: int(self._number(schema, whole=True)),
            "number": lambda: self._number(schema, whole=False),
            "boolean": lambda: self._draw(name) % 2 == 0,
            "null": lambda: None,
        }
        return makers.get(self._type(schema), lambda: self._string(schema, name))()

    def _resolve(self, schema: Any, depth: int = 0) -> Mapping[str, Any]:
        """Follow references, and take the first of several schemas that is not null."""
        for _ in range(_DEEPEST - depth):
            self._left -= 1
            if not isinstance(schema, Mapping) or self._left < -_MOST_VALUES:  # `true`: anything
                return {}
            if reference := schema.get("$ref"):
                schema = self._referred(reference)
            elif either := schema.get("anyOf") or schema.get("oneOf"):
                schema = next((each for each in either if not _is_null(each)), either[0])
            elif "allOf" in schema:
                every = [self._resolve(each, depth + 1) for each in schema["allOf"]]
                schema = {key: value for each in (schema, *every) for key, value in each.items() if key != "allOf"}
            else:
                return schema
        return {}

    def _referred(self, reference: str) -> Any:
        """Find what `#/$defs/Name` points to."""
        found: Any = self._root
        for key in reference.removeprefix("#").strip("/").split("/"):
            if key:
                found = found.get(key, {}) if isinstance(found, Mapping) else {}
        return found

    @staticmethod
    def _type(schema: Mapping[str, Any]) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((each for each in kind if each != "null"), "null")
        return kind or ("object" if "properties" in schema else "array" if "items" in schema else "string")

    def _one_of(self, values: list[Any]) -> Any:
        """Choose the value the text mentions, or any."""
        mentioned = self._mentioned(values)
        lower = self._text[:2_000].lower()
        return mentioned[0] if mentioned else values[crc32(lower.encode(errors="replace")) % len(values)]

    def _mentioned(self, values: list[Any]) -> list[Any]:
        lower = self._text[:2_000].lower()
        return [value for value in values if isinstance(value, str) and value and value.lower() in lower]

    def _draw(self, name: str) -> int:
        """Draw a number as good as random, but always the same for the same prompt and name."""
        return crc32(name.encode(errors="replace"), self._chance)

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties: Mapping[str, Any] = schema.get("properties") or {}
        names = [name for name in schema.get("required") or properties if name in properties]
        if depth >= _DEEPEST or self._left < 0:
            names = []
        return {name: self.value(properties[name], name, depth + 1) for name in names}

    def _array(self, schema: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        if depth >= _DEEPEST or self._left < 0:
            return []
        items = schema.get("items", {})
        if "minItems" not in schema:
            return self._several(items, name, depth, min(2 + self._draw(name) % 2, schema.get("maxItems", 3)))
        count = min(max(schema["minItems"], min(1, schema.get("maxItems", 1))), _MOST_ITEMS)
        return [self.value(items, name, depth + 1) for _ in range(count)]

    def _several(self, schema: Any, name: str, depth: int, count: int) -> list[Any]:
        """Make up items that all differ, or fewer of them where the text or the schema has no more to give."""
        resolved = self._resolve(schema)
        if "const" not in resolved and (values := resolved.get("enum")):
            mentioned = self._mentioned(values)
            return [*mentioned, *(value for value in values if value not in mentioned)][:count]
        items: list[Any] = []
        for _ in range(2 * count):
            if len(items) == count:
                break
            value = self.value(schema, name, depth + 1)
            if value in items:
                next(self._next_word)  # a phrase may be all the words: let the next one begin elsewhere
            else:
                items.append(value)
        return items

    def _number(self, schema: Mapping[str, Any], *, whole: bool) -> float:
        """Take the text's next number if it is in range, else the nearest that is."""
        step = schema.get("multipleOf") or (1 if whole else 0)
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        nudge = step or 0.5
        if low is not None and "minimum" not in schema:
            low += nudge
        if high is not None and "maximum" not in schema:
            high -= nudge
        number = float(next(self._numbers, 1))
        if not math.isfinite(number):  # the text has a number of hundreds of digits
            number = 1.0
        number = max(number, low) if low is not None else number
        number = min(number, high) if high is not None else number
        return _round(number, step, low)

    def _string(self, schema: Mapping[str, Any], name: str) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        chosen = self._text_for(name.lower())
        return chosen.ljust(min(schema.get("minLength", 0), _LONGEST), ".")[: schema.get("maxLength")]

    def _text_for(self, name: str) -> str:
        for pattern, make in ((_WORDS, self._searched), (_REASON, self._reason), (_FEEDBACK, lambda: REMARK)):
            if pattern.search(name):
                return make()
        if _QUESTION.search(name) and self._question:
            asked, self._asked = self._asked, True
            if not asked:
                return self._question
            end = "" if self._question.endswith((".", "?", "!", "…")) else "."
            # Of several alike, each looks at something else.
            return f"{self._question}{end} Look at {self._title or next(self._next_word)}."
        if _TITLE.search(name):
            self._title = next(self._next_topic)
            return self._title
        code: str | None = None
        if name.endswith(_NUMBERED):
            code = next(self._codes, None) or next(self._numbers, None)
        return code or next(self._next_word)

    def _searched(self) -> str:
        return " ".join(self._topics) or next(self._next_word)

    def _reason(self) -> str:
        return f"It is about {_listed(self._topics[:3])}." if self._topics else "There is nothing to go by."


def _listed(names: Sequence[str]) -> str:
    """List names as in `bees, wasps and hornets`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _is_null(schema: Any) -> bool:
    return isinstance(schema, Mapping) and schema.get("type") == "null"


def _round(number: float, step: float, low: float | None) -> float:
    """Round to the next multiple of a step downwards, or upwards where downwards is out of range."""
    if not step:
        return number
    rounded = number // step * step
    if not math.isfinite(rounded):
        return number
    return rounded + step if low is not None and rounded < low else rounded
