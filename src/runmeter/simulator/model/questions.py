"""The question a user asks, in words that can be quoted, and its topics."""

import re
from collections import Counter
from collections.abc import Iterable

from .words import READ, REQUEST, plain_sentences, shorten, words

LONGEST = 200
"""Characters of a question that are quoted."""

_PARAGRAPH_END = re.compile(r"\n[ \t]*\n")
_LABEL = re.compile(r"(?:user )?(?:question|query|request)[ \t*]{0,8}:[*\s]{0,8}", re.IGNORECASE)
_CALLED = re.compile(r"^(?:user )?(?:question|query|request)[ \t]{0,8}:\s{0,8}(\S.*)$", re.IGNORECASE | re.MULTILINE)
_FRAME = re.compile(r"\b(?:above|below|following)\b|^#|^your? ", re.IGNORECASE)
"""A mark of a paragraph that says what others are: a heading, or instructions around what the user wrote."""
QUOTING = 'You asked: "'
"""The beginning of an answer that can but repeat the question."""
_SHORTEST_TOPIC = 3


def asks(text: str) -> bool:
    """Tell whether the text asks something in its own right."""
    return any(_asks(paragraph) for paragraph in _paragraphs(text))


def question(text: str) -> str:
    """Find the question of a text: the paragraph that is called so, or else its first that asks, or else its first."""
    if called := _CALLED.search(text[:READ]):
        return shorten(_unquoted(called[1]), LONGEST)
    paragraphs = _paragraphs(text) or [" ".join(text[:READ].split())]
    return shorten(next(filter(_asks, paragraphs), paragraphs[0]), LONGEST)


def asking(texts: Iterable[str]) -> str:
    """Find the last of the texts that asks something, or else the last."""
    given = list(texts)
    return next(filter(asks, reversed(given)), given[-1] if given else "")


def topics(text: str, most: int) -> list[str]:
    """Find the words that the text is about: those that come most often, in the order in which they come."""
    prose = " ".join(plain_sentences("\n\n".join(_paragraphs(text)))) or text[:READ]
    found = [word for word in words(prose) if len(word) >= _SHORTEST_TOPIC and not REQUEST.fullmatch(word)]
    found = [word for word in found if not word.isdigit()]
    often = Counter(word.lower() for word in found)
    named: dict[str, str] = {}
    for word in found:
        named.setdefault(word.lower(), word)
    best = sorted(named, key=lambda word: -often[word])[:most]
    return [name for word, name in named.items() if word in best]


def _paragraphs(text: str) -> list[str]:
    """Find the paragraphs that the user wrote, as far as can be told."""
    own = (_unquoted(_unlabelled(each.strip())) for each in _PARAGRAPH_END.split(text[:READ]))
    return [each for each in own if each and not each.endswith(":") and not _FRAME.search(each)]


def _unlabelled(paragraph: str) -> str:
    label = _LABEL.match(paragraph)
    return paragraph[label.end() :] if label else paragraph


def _asks(paragraph: str) -> bool:
    return "?" in paragraph or bool(REQUEST.match(paragraph))


def _unquoted(paragraph: str) -> str:
    _, quoting, rest = paragraph.rpartition(QUOTING)
    return rest.partition('"')[0] if quoting else paragraph
