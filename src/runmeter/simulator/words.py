"""A little reading: what a text is about, and which of its sentences say most."""

import re
from collections import Counter
from collections.abc import Iterator

READ = 20_000
"""Characters of a text that are looked at: more would only take time."""

_WORD = re.compile(r"[^\W_]+(?:[-'\u2019][^\W_]+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"\u201d\u2019)]?\s+(?=[\"\u201c(]?[A-Z0-9])|\n\s*\n")
# No pattern may look far ahead in vain at each of many places: time would grow with the square of the text.
_FENCED = re.compile(r"^(```|~~~).*?(?:^\1\s*$|\Z)", re.MULTILINE | re.DOTALL)
_NOT_PROSE = re.compile(r"^[ \t]*(?:#|\||<|=+\s*$|-+\s*$).*$", re.MULTILINE)
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()]*\)")
_BULLET = re.compile(r"^[ \t]*(?:[-*+>]|\d+[.)])\s+", re.MULTILINE)
_EMPHASIS = re.compile(r"[*`]{1,3}([^*`]+)[*`]{1,3}")
_REQUEST = re.compile(
    r"(please|tell|explain|summari[sz]e|describe|list|give|write|answer|find|show|use|call|compare|translate)\b",
    re.IGNORECASE,
)
_STOP_WORDS = """
    a about above after again all also am an and any are as at be because been before being below between both but by
    can could did do does doing down during each every few for from further get give had has have having he her here
    hers him his how i if in into is it its itself just let like make many may me more most much must my no nor not now
    of off on once only or other our out over own please same say see she should so some such tell than that the their
    them then there these they this those through to too under until up us use using very was we were what when where
    which while who whom why will with would you your
"""
_NO_MEANING = frozenset(_STOP_WORDS.split())


def words(text: str) -> list[str]:
    """The words that carry meaning, in order, as they are written."""
    return [word for word in _WORD.findall(text[:READ]) if word.lower() not in _NO_MEANING]


def keywords(text: str) -> set[str]:
    """The same as a set in lower case, `snake_case` and `camelCase` taken apart, plurals made singular."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text[:READ].replace("_", " "))
    return {word.lower().removesuffix("s") for word in words(apart)}


def summary(text: str, *, most: int = 3) -> str:
    """The sentences that say most, in their own order; the longer the text, the more. Empty if it has none.

    A sentence says much if its words are frequent in the text (Luhn, "The Automatic Creation of Literature Abstracts",
    1958).
    """
    found = list(_sentences(text))
    frequency = Counter(word.lower() for sentence in found for word in words(sentence))

    def weight(index: int) -> float:
        own = words(found[index])
        return sum(frequency[word.lower()] for word in own) / (len(own) + 5)

    count = min(most, 1 + len(found) // 4)
    best = sorted(range(len(found)), key=lambda index: (-weight(index), index))[:count]
    return " ".join(found[index] for index in sorted(best))


def _sentences(text: str) -> Iterator[str]:
    """Sentences of prose that say something, rather than ask for it; Markdown's marks are taken away."""
    prose = _NOT_PROSE.sub("", _FENCED.sub("", text[:READ]))
    prose = _BULLET.sub("", _EMPHASIS.sub(r"\1", _LINK.sub(r"\1", prose)))
    for sentence in _SENTENCE_END.split(prose):
        line = " ".join(sentence.split())
        if 15 <= len(line) <= 240 and line[-1] in ".!" and not _REQUEST.match(line):
            yield line
