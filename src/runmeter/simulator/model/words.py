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
_ASKING = """
    answer be call check cite compare consider count decide describe divide do don't explain find give judge keep leave
    let list look make name never note please remember say settle show summarise summarize take tell translate treat use
    work write
"""
REQUEST = re.compile(rf"(?:(?:question|query|request)\s*:\s*)?(?:{'|'.join(_ASKING.split())})\b", re.IGNORECASE)
"""The beginning of a sentence that asks for something."""
_INSTRUCTION = re.compile(r"\b(?:above|below|following|you)\b|^your\b", re.IGNORECASE)
"""A mark of a sentence that tells the reader what to do, or repeats what the reader said."""
_STOP_WORDS = """
    a about above after again all also am an and any are as at be because been before being below between both but by
    can could did do does doing down during each every few for from further get give had has have having he her here
    hers him his how i if in into is it its itself just let like make many may me more most much must my no nor not now
    of off on once only or other our out over own please same say see she should so some such tell than that the their
    them then there these they this those through to too under until up us use using very was we were what when where
    which while who whom why will with would you your
"""
_NO_MEANING = frozenset(_STOP_WORDS.split())
_POSSESSIVE = re.compile(r"['\u2019]s?$")
_ENDINGS = ("ing", "ion", "ied", "ed", "ie", "ly", "e", "y")
_SHORTEST_STEM = 3


def words(text: str) -> list[str]:
    """Find the words that carry meaning, in order, as they are written."""
    return [word for word in _WORD.findall(text[:READ]) if word.lower() not in _NO_MEANING]


def shorten(text: str, most: int) -> str:
    """Write the text in one line, cut between words where it is too long."""
    line = " ".join(text.split())
    return line if len(line) <= most else re.sub(r"\s+\S*$", "", line[:most]) + " …"


def stems(text: str) -> list[str]:
    """Find the words' stems, in lower case: `bee` and `bees`, `pollinate` and `pollination` are one."""
    return [_stem(word.lower()) for word in words(text)]


def keywords(text: str) -> set[str]:
    """Find the set of the words' stems, `snake_case` and `camelCase` taken apart."""
    return set(stems(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text[:READ].replace("_", " "))))


def _stem(word: str) -> str:
    """Cut a word's plural, then one more ending, then a double letter at its end."""
    word = _POSSESSIVE.sub("", word)
    if len(word) > _SHORTEST_STEM:
        word = word.removesuffix("s")
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM:
            word = word.removesuffix(ending)
            break
    double = len(word) > _SHORTEST_STEM and word[-1] == word[-2] and word[-1].isalpha()
    return word[:-1] if double else word


def summary(text: str, *, most: int = 3) -> str:
    """Choose the sentences that say most, in their own order; the longer the text, the more. Empty if it has none.

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


def plain_sentences(text: str) -> list[str]:
    """Find the sentences of prose; Markdown's marks are taken away."""
    prose = _NOT_PROSE.sub("", _FENCED.sub("", text[:READ]))
    prose = _BULLET.sub("", _EMPHASIS.sub(r"\1", _LINK.sub(r"\1", prose)))
    lines = (" ".join(sentence.split()) for sentence in _SENTENCE_END.split(prose))
    return [line for line in lines if line]


def _sentences(text: str) -> Iterator[str]:
    """Find the sentences that say something, rather than ask for it or speak of the text itself."""
    for line in plain_sentences(text):
        if 15 <= len(line) <= 240 and line[-1] in ".!" and not REQUEST.match(line) and not _INSTRUCTION.search(line):
            yield line
