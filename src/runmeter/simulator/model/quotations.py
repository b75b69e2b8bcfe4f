"""Answers from numbered passages, as prompts of retrieval-augmented generation have them: what fits the question is
quoted, with the passage's mark behind it.

    [1] The sea is 3,688 m deep on average.
    [2] Bees visit flowers.

    How deep is the sea?
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from .prompt import Item, Prompt
from .ranking import RankedDocument, Ranking
from .words import REQUEST, plain_sentences, shorten, words

_READ = 200_000
"""Characters of a text that are looked at."""
_LONGEST = 400
"""Characters of a sentence that is quoted."""
_MOST = 3
"""Sentences in an answer."""
NO_ANSWER = "The passages do not answer this."
_NEARLY_BEST = 0.75
"""A share of the best score: sentences with a score of at least so much are quoted too."""
# As in `words`: no pattern may look far ahead in vain at each of many places.
_MARK = re.compile(r"^[ \t]*\[(\d{1,3})\][ \t:]", re.MULTILINE)
_TAG = re.compile(r"</?[A-Za-z][\w-]{0,40}>")
_QUESTION = re.compile(
    r"^[ \t#*]{0,8}(?:user )?(?:question|query)[ \t*]{0,8}:[*\s]{0,8}(\S.*)$", re.MULTILINE | re.IGNORECASE
)
_PARAGRAPH_END = re.compile(r"\n[ \t]*\n")
_SOURCE = re.compile(r"\([^()\n]{1,80}\)[ \t:]{0,8}")
_TITLE = re.compile(r"[^\n]{0,59}[^\n.,;:!?]\n(?=[A-Z0-9])")


def answer_from_passages(prompt: Prompt) -> str | None:
    """Answer from passages in what tools gave back, in the user's message, in the instructions or just before it.

    None if there are none, or no question.
    """
    asked = prompt.user_text
    for output in prompt.outputs:
        if passages := _passages(output.text):
            return _answer(asked, passages)
    question, rest = _take_question(asked[-_READ:])
    if question and (passages := _passages(rest)):
        return _answer(question, passages)
    for text in (prompt.instructions or "", *_background(prompt.items)):
        if asked and (passages := _passages(text)):
            return _answer(asked, passages)
    return None


def _background(items: Sequence[Item]) -> Iterator[str]:
    """Find the texts of rules, and of what else was said between the last answer and the user's last message."""
    messages = [item for item in items if item.type == "message"]
    last = max((place for place, message in enumerate(messages) if message.role == "user"), default=0)
    answers = (place for place, message in enumerate(messages[:last]) if message.role == "assistant")
    since = max(answers, default=-1)
    for place, message in enumerate(messages):
        if message.role in {"system", "developer"} or since < place < last:
            yield message.text


def _passages(text: str) -> list[tuple[str, str]]:
    """Find each passage's number, and its text: up to the next mark, or to the end."""
    _, *parts = _MARK.split(_TAG.sub("\n", text[:_READ]))
    return list(zip(parts[::2], parts[1::2], strict=True))


def _take_question(text: str) -> tuple[str, str]:
    """Divide a message into its question and the rest; it may stand before or after the passages."""
    text = _TAG.sub("\n", text)
    if named := list(_QUESTION.finditer(text)):
        found = named[-1]
        return found[1], text[: found.start()] + "\n\n" + text[found.end() :]
    marks = list(_MARK.finditer(text))
    if not marks:
        return "", text
    before, last = text[: marks[0].start()], text[marks[-1].start() :]
    _, *after = _PARAGRAPH_END.split(last)
    if after and ("?" in after[-1] or REQUEST.match(after[-1].strip())):
        return after[-1], text[: len(text) - len(after[-1])]
    questions = [paragraph for paragraph in _PARAGRAPH_END.split(before) if "?" in paragraph]
    return (questions[-1] if questions else ""), text


def _answer(question: str, passages: Iterable[tuple[str, str]]) -> str:
    """Quote the sentences that fit the question best, the best first."""
    marks: dict[str, str] = {}
    for number, text in passages:
        for sentence in plain_sentences(_body(text)):
            marks.setdefault(sentence, number)  # passages overlap: the first that says it is named
    documents = [RankedDocument.of(sentence) for sentence in marks if len(sentence) <= _LONGEST]
    scores = Ranking(documents).scores(question)
    best = max(scores, default=0)
    if not best:
        return f'The passages do not answer this: "{shorten(question, 200)}"' if words(question) else NO_ANSWER
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    chosen = [documents[index].text for index in order[:_MOST] if scores[index] >= best * _NEARLY_BEST]
    return " ".join(_cite(sentence, marks[sentence]) for sentence in chosen)


def _body(text: str) -> str:
    """Cut a source or title from the beginning of a passage."""
    for prefix in (_SOURCE, _TITLE):
        if found := prefix.match(text := text.strip()):
            text = text[found.end() :]
    return text


def _cite(sentence: str, number: str) -> str:
    end = sentence[-1] if sentence[-1] in ".!?" else "."
    return f"{sentence.rstrip('.!?')} [{number}]{end}"
